package credentials

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// maxChunks is the maximum number of cookies into which a token can be divided. Browsers limit a
// cookie to 4096 bytes, so the longest token that is accepted needs five.
const maxChunks = 32

// The names of the parts of a cookie: <name>.0, <name>.1 and so on; or, if the cookie says how many
// there are, <name>C1, <name>C2 and so on.
const (
	dotted  = '.'
	counted = 'C'
)

// chunk is a cookie whose name is that of the token with a suffix: dotted or counted, and a number.
type chunk struct {
	kind   byte
	number int
	value  string
}

// chunkOf returns the kind and the number of the chunk with this suffix. A number is at most
// maxChunks, which stands for all that are larger, and has no leading zero.
func chunkOf(suffix string) (c chunk, ok bool) {
	if len(suffix) < 2 || suffix[0] != dotted && suffix[0] != counted ||
		strings.Trim(suffix[1:], "0123456789") != "" || suffix[1] == '0' && len(suffix) > 2 {
		return c, false
	}
	number, err := strconv.Atoi(suffix[1:])
	if err != nil {
		number = maxChunks + 1
	}
	return chunk{kind: suffix[0], number: min(number, maxChunks+1)}, true
}

// findCookie returns the values of the cookie itself, and its chunks.
func (s *Source) findCookie(r *http.Request) (whole []string, chunks []chunk) {
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			name, value := cutCookie(pair)
			suffix, ours := strings.CutPrefix(name, s.Cookie)
			if !ours {
				continue
			}
			if suffix == "" {
				whole = append(whole, value)
			} else if part, ok := chunkOf(suffix); ok {
				part.value = value
				chunks = append(chunks, part)
			}
		}
	}
	return whole, chunks
}

// readCookie returns the token in a cookie, whole or in chunks.
func (s *Source) readCookie(r *http.Request) (string, error) {
	if s.OfAccounts {
		return s.only(CookieValues(r, s.cookieName(r)))
	}
	whole, chunks := s.findCookie(r)
	value, err := s.only(whole)
	if err != nil {
		return "", err
	}
	parts := count(chunks, dotted)
	if !slices.ContainsFunc(chunks, func(part chunk) bool { return part.kind == dotted && part.value != "" }) {
		parts = 0 // the site has cleared them
	}
	switch announced, ok := announcedChunks(value); {
	case parts > 0 && value != "":
		return "", refusal.New(refusal.SeveralTokens, "%s is sent both whole and in parts", s)
	case parts > 0:
		value, err = s.join(chunks, dotted, 0, parts)
	case ok:
		value, err = s.join(chunks, counted, 1, announced)
	}
	if err != nil {
		return "", err
	}
	return s.withoutScheme(value)
}

func count(chunks []chunk, kind byte) (n int) {
	for _, part := range chunks {
		if part.kind == kind {
			n++
		}
	}
	return n
}

// announcedChunks returns the number of chunks in the value of a cookie of ASP.NET.
func announcedChunks(value string) (n int, ok bool) {
	number, ok := strings.CutPrefix(value, "chunks-")
	if !ok {
		number, ok = strings.CutPrefix(value, "chunks:")
	}
	c, valid := chunkOf(string(counted) + number)
	return c.number, ok && valid
}

// join returns the value that is divided into the chunks of a kind from first on.
func (s *Source) join(chunks []chunk, kind byte, first, parts int) (string, error) {
	if parts > maxChunks {
		return "", refusal.New(refusal.MalformedCredentials, "%s has more than %d parts", s, maxChunks)
	}
	values, found := make([]string, parts), make([]bool, parts)
	for _, part := range chunks {
		i := part.number - first
		if part.kind != kind || i < 0 || i >= parts { // then another one is missing, or it is left over
			continue
		}
		if found[i] {
			return "", refusal.New(refusal.SeveralTokens, "part %d of %s is sent twice", part.number, s)
		}
		values[i], found[i] = part.value, true
	}
	for i, there := range found {
		if !there {
			return "", refusal.New(refusal.MalformedCredentials, "part %d of %s is missing", i+first, s)
		}
	}
	return strings.Join(values, ""), nil
}

// withoutScheme returns the token in a value such as `Bearer <token>`, also with an encoded space.
func (s *Source) withoutScheme(value string) (string, error) {
	const scheme = "bearer"
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return value, nil
	}
	rest := value[len(scheme):]
	for _, space := range []string{" ", "%20", "+"} { // + as by PHP
		token, ok := strings.CutPrefix(rest, space)
		if ok && token != "" && !strings.ContainsAny(token, " \t,") {
			return token, nil
		}
		if ok || rest == "" {
			return "", refusal.New(refusal.MalformedCredentials, "%s has a scheme but not one token", s)
		}
	}
	return value, nil
}

// stripCookies removes the cookie and its chunks.
func (s *Source) stripCookies(r *http.Request) {
	if s.OfAccounts {
		if name := s.cookieName(r); len(CookieValues(r, name)) > 0 {
			StripCookie(r, name)
		}
		return
	}
	whole, chunks := s.findCookie(r)
	if len(whole) == 0 && len(chunks) == 0 {
		return
	}
	announced := false
	for _, value := range whole {
		_, ok := announcedChunks(value)
		announced = announced || ok
	}
	stripCookies(r, func(name string) bool {
		suffix, ours := strings.CutPrefix(name, s.Cookie)
		part, ok := chunkOf(suffix)
		return ours && (suffix == "" || ok && (part.kind == dotted || announced))
	})
}
