package cli

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
)

// errNoUser means that a line has no user, because it is empty or a comment.
var errNoUser = errors.New("no user")

// parseHtpasswdUser reads a line of Apache's htpasswd: name:hash. Comments start with #.
func parseHtpasswdUser(line []byte) (record userRecord, err error) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return record, errNoUser
	}
	name, hash, found := strings.Cut(string(line), ":")
	switch {
	case !utf8.Valid(line):
		return record, errors.New("it is not valid UTF-8")
	case !found || name == "" || hash == "":
		return record, errors.New("it must be a name, a colon and a hash, as htpasswd writes it")
	case strings.Contains(hash, ":"):
		return record, errors.New("it has more than one colon; files of htdigest cannot be imported")
	}
	record = userRecord{PasswordHash: &hash, htpasswd: true}
	if strings.Contains(name, "@") {
		record.Email = name
	} else {
		record.Username = name
	}
	return record, nil
}
