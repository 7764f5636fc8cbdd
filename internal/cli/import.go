package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import <file or -> [flags]",
		Short: "Adds users from a file, with their password hashes",
		Long: `
Adds users from a file, or from standard input for -. Passwords are imported as
hashes: argon2id ($argon2id$v=19$…), argon2i, bcrypt ($2b$…), scrypt and pbkdf2 of
passlib, Django or Werkzeug, sha512crypt ($6$…) or sha256crypt ($5$…), also behind
{bcrypt} or {CRYPT}. At the next log-in, the password is hashed anew. Users whose
e-mail address or, without one, user name already exists are skipped, so you can
repeat an import. An invalid
line is reported with its number, and the import continues with the next line.
Second factors and passkeys are not imported: users set them up again.

JSON lines: each line is an object with these members:

    email          the e-mail address
    username       the name by which the user logs in; an address or a name is required
    password_hash  required; empty for a user without a password
    id             a UUID, or the user's ID in another system: 1 to 255 of
                   A-Z a-z 0-9 ! ( ) + - . : = @ _ | ~ that start with one of
                   A-Z a-z 0-9 _ and do not end with @clients; default: a new UUID
    roles          list of strings
    profile        object of profile properties
    disabled       true or false
    email_verified true or false: whether the user has confirmed the address
    created_at     time, as in 2026-01-31T12:00:00Z; default: now

htpasswd: a file of Apache's htpasswd, whose lines are name:hash. A name with @ is an
e-mail address, any other a user name. Hashes of $apr1$ and {SHA}, which are weak, are
accepted only here.

CSV: the first line names the columns, which are the same members in any order.
Roles are separated by spaces, and every other column is a profile property. A
value cannot contain line breaks, and an empty value means that it is not set. If
a value looks like a formula, export writes an apostrophe before it; import
removes that apostrophe.`,
		Example: `  caddy jwt user import users.csv
  caddy jwt user import .htpasswd
  other-database-dump | caddy jwt user import --format jsonl -`,
		Args: Takes("a file name, or - for standard input"),
		RunE: operates(true, importUsers, checkImport),
	}
	AddCreate(cmd)
	cmd.Flags().String("format", "", "csv, jsonl or htpasswd; by default the extension or name of the file")
	return cmd
}

var (
	formats       = []string{"csv", "jsonl"} // of export, too
	importFormats = append(formats, "htpasswd")
)

// importFormat returns the format: from the flag, otherwise from the file name.
func (o *operator) importFormat() (string, error) {
	format := o.flags.String("format")
	if format == "" {
		if format = strings.TrimPrefix(filepath.Ext(o.args[0]), "."); format == "" {
			format = filepath.Base(o.args[0]) // such as htpasswd
		}
	}
	switch {
	case slices.Contains(importFormats, format):
		return format, nil
	case format == "ndjson":
		return "jsonl", nil
	case o.flags.String("format") != "":
		return "", fmt.Errorf("--format: %w", config.Unknown("format", format, importFormats))
	}
	return "", fmt.Errorf(
		"the format of %s is unknown; set --format csv, jsonl or htpasswd", refusal.Quoted(o.args[0]),
	)
}

// importCount counts the results of the lines of an import.
type importCount struct {
	imported, skipped, refused int
	weak, named                int // of those imported

	out   io.Writer
	shows bool // show progress
	last  time.Time
}

func (c *importCount) String() string {
	return fmt.Sprintf("imported %d, skipped %d, refused %d", c.imported, c.skipped, c.refused)
}

// show shows the progress on a terminal.
func (c *importCount) show() {
	if c.shows && time.Since(c.last) > progressInterval {
		c.last = time.Now()
		fmt.Fprintf(c.out, "\r%s", c)
	}
}

// clear clears the line of the terminal.
func (c *importCount) clear() {
	if c.shows {
		fmt.Fprintf(c.out, "\r%*s\r", len(c.String()), "")
	}
}

// report reports a line. It must not contain values of the line, because one may be a hash.
func (c *importCount) report(number int, what string, err error) {
	c.clear()
	fmt.Fprintf(c.out, "line %d %s: %v\n", number, what, err)
}

// checkImport returns an error if there is nothing to import.
func checkImport(o *operator) error {
	if _, err := o.importFormat(); err != nil || o.args[0] == "-" {
		return err
	}
	file, err := os.Open(o.args[0])
	if err != nil {
		return err
	}
	return file.Close()
}

func importUsers(o *operator) error {
	format, err := o.importFormat()
	if err != nil {
		return err
	}
	in := o.cmd.InOrStdin()
	if o.args[0] != "-" {
		file, err := os.Open(o.args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	lines := &lineReader{in: bufio.NewReaderSize(in, maxImportLine)}
	parse := parseJSONUser
	switch format {
	case "htpasswd":
		parse = parseHtpasswdUser
	case "csv":
		header, err := readCSVHeader(lines)
		if err != nil {
			return fmt.Errorf("the first line of the CSV: %w", err)
		}
		parse = header.parseUser
	}
	count := &importCount{out: o.cmd.ErrOrStderr(), shows: terminalOf(o.cmd.ErrOrStderr()) != nil}
	err = o.importLines(lines, parse, count)
	count.clear()
	o.say("%s", count)
	if count.weak > 0 {
		fmt.Fprintf(count.out, "hashes that are weak until their users log in: %d ($apr1$ or {SHA}); "+
			"who gets a copy of the store can guess these passwords\n", count.weak)
	}
	if count.named > 0 {
		o.noteNames()
	}
	if err == nil && count.refused > 0 {
		err = errors.New("some lines were refused; correct them and import the file again")
	}
	return err
}

func (o *operator) importLines(lines *lineReader, parse func([]byte) (userRecord, error), count *importCount) error {
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("line %d: %w", lines.number, err)
		}
		if err == nil && len(line) == 0 {
			continue
		}
		var user store.User
		weak := false
		if err == nil {
			user, weak, err = o.importLine(line, parse)
		}
		if errors.Is(err, errNoUser) {
			continue
		}
		if failure, ok := errors.AsType[*storeFailure](err); ok {
			return fmt.Errorf(
				"line %d: %w; the lines before it were imported and will be skipped when you import the file again",
				lines.number, failure.error,
			)
		}
		switch {
		case err == nil:
			count.imported++
			if weak {
				count.weak++
			}
			if user.Username() != "" {
				count.named++
			}
		case errors.Is(err, store.ErrEmailTaken), errors.Is(err, store.ErrUsernameTaken) && user.Address() == "":
			count.skipped++
			count.report(lines.number, "skipped", err)
		default:
			count.refused++
			count.report(lines.number, "refused", err)
		}
		count.show()
	}
}

// storeFailure is an error of the store, not of the line.
type storeFailure struct{ error }

// importLine imports a line, and reports whether the hash is weak.
func (o *operator) importLine(
	line []byte, parse func([]byte) (userRecord, error),
) (user store.User, weak bool, err error) {
	record, err := parse(line)
	if err != nil {
		return user, false, err
	}
	if user, weak, err = record.user(time.Now()); err != nil {
		return user, false, err
	}
	_, err = o.store.UserByEmail(o.ctx, user.EmailKey)
	if err == nil && user.Address() == "" {
		return user, false, store.ErrUsernameTaken
	}
	if err == nil {
		return user, false, store.ErrEmailTaken
	}
	if errors.Is(err, store.ErrNotFound) {
		_, err = o.store.User(o.ctx, user.ID)
	}
	if err == nil {
		return user, false, errors.New("another user has this ID")
	}
	if errors.Is(err, store.ErrNotFound) {
		err = store.AddUser(o.ctx, o.store, user, time.Now())
	}
	if err == nil || isTaken(err) {
		return user, weak, err
	}
	return user, false, &storeFailure{err}
}

// lineReader reads lines and only needs memory for one of them.
type lineReader struct {
	in     *bufio.Reader
	number int // of the line that was read last
}

var errLineTooLong = fmt.Errorf("it is longer than %d bytes", maxImportLine)

// next returns a line without its end. The line is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	l.number++
	line, err := l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.in.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errLineTooLong
		}
		return nil, err
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = nil
	}
	if l.number == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff")) // spreadsheets begin with it
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// userRecord is a user in a file; its JSON is a line of JSON lines.
type userRecord struct {
	ID           string         `json:"id"`
	Email        string         `json:"email,omitzero"`
	Username     string         `json:"username,omitzero"`
	PasswordHash *string        `json:"password_hash"`
	Roles        []string       `json:"roles"`
	Profile      jsontext.Value `json:"profile"`
	Disabled     bool           `json:"disabled"`
	Verified     bool           `json:"email_verified"`
	CreatedAt    string         `json:"created_at"`

	htpasswd bool // of a file of htpasswd
}

// importableID matches IDs of other systems that can be imported: a number, an ObjectId, auth0|64f1….
// They are safe where a site puts them: in paths and their patterns, headers, lists, file names,
// placeholders, spreadsheets and commands. The length is that of OpenID Connect Core §2 for `sub`.
var importableID = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9!()+.:=@_|~-]{0,254}$`)

// checkID returns an error if the ID of another system cannot be that of a user.
func checkID(id string) error {
	if !importableID.MatchString(id) {
		return errors.New("id must be a UUID, or 1 to 255 of the characters A-Z, a-z, 0-9 and " +
			"! ( ) + - . : = @ _ | ~ that start with a letter, a digit or _, because others would break paths, " +
			"headers or lists; omit it to get a new one")
	}
	if strings.HasSuffix(strings.ToLower(id), "@clients") {
		return errors.New("id must be a UUID, or not end with @clients, because clients that are no users have such " +
			"IDs; omit it to get a new one")
	}
	return nil
}

// user validates what a store does not, and reports whether the hash is weak. Errors do not contain the values.
func (r userRecord) user(now time.Time) (user store.User, weak bool, err error) {
	user = store.User{
		ID: uuid.NewString(), Roles: r.Roles, Disabled: r.Disabled, CreatedAt: now, UpdatedAt: now,
		EmailVerified: r.Verified && r.Email != "",
	}
	if user.Profile, err = r.profile(); err != nil {
		return user, false, err
	}
	if r.Email != "" || r.Username == "" {
		if err = user.SetEmail(r.Email); err != nil {
			return user, false, fmt.Errorf("email %w", err)
		}
	}
	if r.Username != "" {
		if err = user.SetUsername(r.Username); err != nil {
			return user, false, fmt.Errorf("username %w", err)
		}
	}
	if r.PasswordHash == nil {
		return user, false, errors.New("password_hash is missing; " +
			"for a user without a password, set it to the empty string")
	}
	if user.PasswordHash = *r.PasswordHash; user.PasswordHash != "" {
		if user.PasswordHash, weak, err = password.Import(user.PasswordHash, r.htpasswd); err != nil {
			return user, false, fmt.Errorf("password_hash: %w", err)
		}
	}
	if r.ID != "" {
		if user.ID = r.ID; len(r.ID) == 36 && uuid.Validate(r.ID) == nil {
			user.ID = strings.ToLower(r.ID)
		} else if err = checkID(r.ID); err != nil {
			return user, false, err
		}
	}
	if r.CreatedAt != "" {
		if user.CreatedAt, err = time.Parse(time.RFC3339, r.CreatedAt); err != nil {
			return user, false, errors.New("created_at must be a time, as in 2026-01-31T12:00:00Z")
		}
	}
	if err := store.CheckRoles(user.Roles); err != nil {
		return user, false, fmt.Errorf("roles: %w", err)
	}
	return user, weak, nil
}

func (r userRecord) profile() (map[string]any, error) {
	if kind := r.Profile.Kind(); kind == 0 || kind == 'n' {
		return nil, nil
	}
	profile, err := jwt.ParseClaims(r.Profile) // keeps whole numbers to the digit
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	for name := range profile {
		if err := store.CheckProfileName(name); err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
	}
	if store.OutOfRange(profile) {
		return nil, errors.New("profile: a number is out of range")
	}
	if store.DeeperThan(profile, store.MaxProfileDepth+1) {
		return nil, fmt.Errorf("profile: a property is nested deeper than %d levels", store.MaxProfileDepth)
	}
	return profile, nil
}

func recordOf(user store.User) (userRecord, error) {
	profile, err := json.Marshal(user.Properties())
	return userRecord{
		ID: user.ID, Email: user.Address(), Username: user.Username(), PasswordHash: &user.PasswordHash,
		Roles: user.Roles, Profile: profile, Disabled: user.Disabled, Verified: user.EmailVerified,
		CreatedAt: user.CreatedAt.UTC().Format(time.RFC3339Nano),
	}, err
}

func parseJSONUser(line []byte) (record userRecord, err error) {
	err = parseJSONLine(line, &record, "; put other properties into profile", append(csvColumns, "profile"))
	return record, err
}

// parseJSONLine reads an object, of which members are all members that it may have. The error
// about another one ends with the hint.
func parseJSONLine(line []byte, object any, hint string, members []string) error {
	err := jsonv2.Unmarshal(line, object, jsonv2.RejectUnknownMembers(true))
	semantic, ok := errors.AsType[*jsonv2.SemanticError](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return jwt.JSONError(err)
	case errors.Is(err, jsonv2.ErrUnknownName):
		name := semantic.JSONPointer.LastToken()
		return fmt.Errorf("unknown member %s%s%s", refusal.Quoted(name), hint, config.Meant(name, members...))
	case semantic.JSONPointer == "":
		return errors.New("it is not a JSON object")
	}
	return fmt.Errorf("%s has the wrong JSON type", refusal.Quoted(string(semantic.JSONPointer)))
}

// csvHeader lists the names of the columns.
type csvHeader []string

func readCSVHeader(lines *lineReader) (csvHeader, error) {
	line, err := lines.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header, err := parseCSVLine(line)
	if err != nil {
		return nil, err
	}
	for i := range header {
		header[i] = notEscaped(strings.TrimSpace(header[i]))
	}
	if !slices.Contains(header, "email") && !slices.Contains(header, "username") ||
		!slices.Contains(header, "password_hash") {
		return nil, errors.New("it must name the columns email and password_hash, separated by commas; " +
			"for users who only have names, username instead of email")
	}
	return header, csvHeader(header).check()
}

// csvColumns are the columns that are not profile properties.
var csvColumns = []string{
	"email", "password_hash", "id", "roles", "disabled", "email_verified", "created_at", "username",
}

func (h csvHeader) check() error {
	for i, name := range h {
		if slices.Contains(h[:i], name) {
			return fmt.Errorf("the column %s is specified twice", refusal.Quoted(name))
		}
		if slices.Contains(csvColumns, name) {
			continue
		}
		if err := store.CheckProfileName(name); err != nil {
			return err
		}
		if lower := strings.ToLower(name); strings.Contains(lower, "password") || strings.Contains(lower, "hash") {
			return fmt.Errorf(
				"the column %s would become a profile property, which is visible to the user; put hashes into the "+
					"column password_hash, or, if it really is a property, import JSON lines", refusal.Quoted(name),
			)
		}
	}
	return nil
}

func parseCSVLine(line []byte) ([]string, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("it is not valid UTF-8")
	}
	values, err := csv.NewReader(bytes.NewReader(line)).Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		return nil, errors.New("its quotation marks do not match; " +
			"put a value that contains a quotation mark in quotation marks, and double the mark inside")
	}
	return values, nil
}

func (h csvHeader) parseUser(line []byte) (record userRecord, err error) {
	values, err := parseCSVLine(line)
	if err != nil {
		return record, err
	}
	if len(values) != len(h) {
		return record, fmt.Errorf("it has %d values, but the first line names %d columns", len(values), len(h))
	}
	profile := make(map[string]any)
	for i, value := range values {
		value = notEscaped(value)
		switch h[i] {
		case "email":
			record.Email = value
		case "username":
			record.Username = value
		case "password_hash":
			record.PasswordHash = &value
		case "id":
			record.ID = value
		case "roles":
			record.Roles = strings.Fields(value)
		case "disabled":
			if record.Disabled, err = strconv.ParseBool(cmp.Or(value, "false")); err != nil {
				return record, errors.New("disabled must be true or false")
			}
		case "email_verified":
			if record.Verified, err = strconv.ParseBool(cmp.Or(value, "false")); err != nil {
				return record, errors.New("email_verified must be true or false")
			}
		case "created_at":
			record.CreatedAt = value
		default:
			if value == "" {
				continue
			}
			if profile[h[i]], err = store.TypedProperty(h[i], value); err != nil {
				return record, err
			}
		}
	}
	record.Profile, err = json.Marshal(profile)
	return record, err
}

func exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [flags]",
		Short: "Prints all users, with their password hashes, in the format of import",
		Long: `
Prints all users, with their password hashes, in the format that import reads.
Keep the output as secret as the store: passwords can be guessed from hashes. It
does not contain sessions, nor second factors, recovery codes and passkeys: who is
imported elsewhere logs in without them, and sets them up again. caddy jwt store
copy copies these, too; apps also need the key in Caddy's storage.

You can open the CSV in a spreadsheet: if a value looks like a formula, such as
=1+1, export writes an apostrophe before it, and import removes it. JSON lines
contain every value unchanged.`,
		Example: `  (umask 077; caddy jwt user export > users.jsonl)`,
		Args:    cobra.NoArgs,
		RunE:    operates(false, exportUsers),
	}
	cmd.Flags().String("format", "jsonl", "csv or jsonl")
	return cmd
}

func exportUsers(o *operator) error {
	out := bufio.NewWriter(o.cmd.OutOrStdout())
	var err error
	switch format := o.flags.String("format"); format {
	case "jsonl":
		err = o.exportJSON(out)
	case "csv":
		err = o.exportCSV(out)
	default:
		err = fmt.Errorf("--format: %w", config.Unknown("format", format, formats))
	}
	return errors.Join(err, out.Flush())
}

// records returns all users in the form of a file.
func (o *operator) records() iter.Seq2[userRecord, error] {
	return func(yield func(userRecord, error) bool) {
		for users, err := range o.pages() {
			if err != nil {
				yield(userRecord{}, err)
				return
			}
			for _, user := range users {
				if !yield(recordOf(user)) {
					return
				}
			}
		}
	}
}

// exportJSON skips users that cannot be exported, and reports them at the end.
func (o *operator) exportJSON(out io.Writer) error {
	var left error
	for record, err := range o.records() {
		if err != nil && record.ID == "" {
			return errors.Join(left, err)
		}
		var line []byte
		if err == nil {
			line, err = jsonv2.Marshal(record)
		}
		if err != nil {
			left = errors.Join(left, fmt.Errorf("user %s is skipped: %w", record.ID, err))
			continue
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return left
}

// exportCSV reads the users twice, because the first line must name all properties.
func (o *operator) exportCSV(out io.Writer) error {
	header, err := o.csvHeader()
	if err != nil {
		return fmt.Errorf("%w; use --format jsonl", err)
	}
	lines := csv.NewWriter(out)
	if err := lines.Write(escaped(header)); err != nil {
		return err
	}
	for record, err := range o.records() {
		if err != nil {
			return err
		}
		values, err := header.values(record)
		if err != nil {
			return fmt.Errorf("user %s: %w; use --format jsonl", record.ID, err)
		}
		if err := lines.Write(escaped(values)); err != nil {
			return err
		}
	}
	lines.Flush()
	return lines.Error()
}

func (o *operator) csvHeader() (csvHeader, error) {
	names := make(map[string]bool)
	for users, err := range o.pages() {
		if err != nil {
			return nil, err
		}
		for _, user := range users {
			for name := range user.Properties() {
				names[name] = true
			}
		}
	}
	delete(names, "username") // for a user without a name, it is in the column of names
	header := csvHeader(slices.Concat(csvColumns, slices.Sorted(maps.Keys(names))))
	for _, name := range header {
		if strings.TrimSpace(name) != name || strings.ContainsAny(name, "\r\n") {
			return nil, fmt.Errorf(
				"the property %s begins or ends with a space or contains a line break, which CSV cannot represent",
				refusal.Quoted(name),
			)
		}
	}
	return header, header.check()
}

// values returns a line of CSV. It returns an error for a value that an import would read
// differently.
func (h csvHeader) values(record userRecord) ([]string, error) {
	if err := store.CheckRoles(record.Roles); err != nil {
		return nil, err
	}
	var profile map[string]any
	if err := json.Unmarshal(record.Profile, &profile); err != nil {
		return nil, err
	}
	named, _ := profile["username"].(string)
	delete(profile, "username")
	values := []string{
		record.Email, *record.PasswordHash, record.ID, strings.Join(record.Roles, " "),
		strconv.FormatBool(record.Disabled), strconv.FormatBool(record.Verified), record.CreatedAt,
		cmp.Or(record.Username, named),
	}
	for _, name := range h[len(csvColumns):] {
		value, given := profile[name]
		text, isText := value.(string)
		if given && !isText || strings.ContainsAny(text, "\r\n") {
			return nil, fmt.Errorf(
				"the property %s is not a string of one line, so CSV cannot represent it", refusal.Quoted(name),
			)
		}
		if given && text == "" {
			return nil, fmt.Errorf(
				"the property %s is an empty string, which CSV cannot distinguish from a missing one",
				refusal.Quoted(name),
			)
		}
		values = append(values, text)
		delete(profile, name)
	}
	if len(profile) > 0 {
		return nil, errors.New("a property was added while it was exported")
	}
	return values, nil
}
