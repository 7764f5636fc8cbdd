package caddyjwt

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/text/unicode/norm"
)

// Servers interpret the same path in different ways: some resolve dot segments, some decode
// twice, some remove path parameters. If access depends on a path, every interpretation is
// checked, and a request whose interpretations do not all agree is refused. Nearly all
// paths have only one interpretation, which is detected without an allocation.

// These limits bound the interpretations of a path, because clients choose it. A path that
// exceeds a limit is treated as if its interpretations disagreed.
const (
	maxReadings     = 64
	maxReadingBytes = 16 << 10
)

// judgePath returns the decision about a request, and whether it is the same for every
// interpretation of the path.
func judgePath(r *http.Request, decide func(*http.Request) (bool, error)) (decision, alike bool) {
	decision, err := decide(r)
	if err != nil {
		return false, false
	}
	if ordinary(r.URL) {
		return decision, true
	}
	paths, err := readings(r)
	if err != nil {
		return decision, false
	}
	for _, path := range paths {
		if other, err := decide(reread(r, path)); err != nil || other != decision {
			return decision, false
		}
	}
	return decision, true
}

// ordinary reports whether all servers interpret a path the same way.
func ordinary(u *url.URL) bool {
	path := u.Path
	if u.RawPath != "" || !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return false
	}
	names := true // only letters and similar
	for i := range len(path) {
		if readDifferently[path[i]] {
			return false
		}
		names = names && path[i] != '.' && path[i] != ' '
	}
	for more := !names; more; {
		var segment string
		segment, path, more = strings.Cut(path, "/")
		if segment == "" {
			continue
		}
		if last := segment[len(segment)-1]; segment[0] == ' ' || last == ' ' || last == '.' ||
			scriptEnd(segment, 0, more, true) > 0 {
			return false
		}
	}
	return true
}

// readDifferently has the bytes that other servers may treat specially.
var readDifferently = func() (table [256]bool) {
	for c := range table {
		table[c] = c < ' ' || c >= 0x7f || strings.IndexByte(`\;%?#`, byte(c)) >= 0
	}
	return table
}()

var errReadings = errors.New("the path has too many interpretations, or none")

// readings returns every plausible interpretation of the request's path, including Caddy's:
// all results of the rewritings, in any order.
func readings(r *http.Request) ([]string, error) {
	first := decodeOrdinary(r.URL.EscapedPath())
	if first == "" && r.Method != http.MethodConnect { // as in GET http://host
		first = "/"
	}
	if !strings.HasPrefix(first, "/") { // CONNECT has a host instead of a path
		return nil, errReadings
	}
	found := []string{first}
	size := len(first)
	if size > maxReadingBytes {
		return nil, errReadings
	}
	for i := 0; i < len(found); i++ {
		for _, rewrite := range rewritings {
			next := rewrite(found[i])
			if slices.Contains(found, next) {
				continue
			}
			if size += len(next); len(found) == maxReadings || size > maxReadingBytes {
				return nil, errReadings
			}
			found = append(found, next)
		}
	}
	return found, nil
}

// reread returns the request with another interpretation of its path. Values that maps and
// variables of the config derived from the path are unchanged, and so is the body.
func reread(r *http.Request, path string) *http.Request {
	trial := new(http.Request)
	*trial = *r
	trial.Body = http.NoBody
	trial.URL = new(url.URL)
	*trial.URL = *r.URL
	trial.URL.Path, trial.URL.RawPath = keepSegments(path), ""
	trial.RequestURI = trial.URL.RequestURI()
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	replacer := caddy.NewReplacer()
	original, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if ok {
		replacer.Map(func(key string) (any, bool) {
			if !strings.HasPrefix(key, "http.request.body") {
				return nil, false
			}
			return original.Get(key)
		})
	}
	trial = caddyhttp.PrepareRequest(trial, replacer, nil, server)
	if vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		maps.Copy(trial.Context().Value(caddyhttp.VarsCtxKey).(map[string]any), vars)
	}
	if ok {
		replacer.Map(original.Get)
	}
	return trial
}

// rewritings are the transformations that servers apply to a path.
var rewritings = []func(string) string{
	decode, decodeDots, backslashesAsSlashes, withoutParameters, cutShort, withoutInvisible,
	foldUnicode, trimSegments, mergeSlashes, resolveDots, withoutAuthority, withoutSlashesAndAuthority,
}

// decodeOrdinary decodes what every server decodes, and keeps what some servers compare as
// sent.
func decodeOrdinary(path string) string {
	return percentDecode(path, func(c byte) bool {
		return c >= ' ' && c != '.' && c != '/' && (c >= 0x80 || !readDifferently[c])
	})
}

// decode decodes again, as a server behind a proxy may do.
func decode(path string) string {
	return percentDecode(path, func(byte) bool { return true })
}

// decodeDots decodes only dots, as the URL standard does for dot segments: segments joined
// by `%2f` stay one segment.
func decodeDots(path string) string {
	return percentDecode(path, func(c byte) bool { return c == '.' })
}

// percentDecode also decodes the escapes of IIS, such as %u002e. It keeps invalid escapes.
func percentDecode(path string, matches func(byte) bool) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var decoded strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '%' {
			if c, ok := hexadecimal(path, i+1, 2); ok && matches(byte(c)) {
				decoded.WriteByte(byte(c))
				i += 2
				continue
			}
			if i+1 < len(path) && path[i+1]|0x20 == 'u' {
				if c, ok := hexadecimal(path, i+2, 4); ok {
					decoded.WriteRune(c)
					i += 5
					continue
				}
			}
		}
		decoded.WriteByte(path[i])
	}
	return decoded.String()
}

func hexadecimal(text string, from, digits int) (value rune, ok bool) {
	if len(text) < from+digits {
		return 0, false
	}
	for _, c := range text[from : from+digits] {
		digit := strings.IndexRune("0123456789abcdef", unicode.ToLower(c))
		if digit < 0 {
			return 0, false
		}
		value = value<<4 | rune(digit)
	}
	return value, true
}

func backslashesAsSlashes(path string) string { return strings.ReplaceAll(path, `\`, "/") }

// withoutParameters removes path parameters (RFC 3986 §3.3), as Java servers do.
func withoutParameters(path string) string {
	return eachSegment(path, ";", func(segment string) string {
		name, _, _ := strings.Cut(segment, ";")
		return name
	})
}

// cutShort ends the path where a server may end it: at a NUL or other control character, or
// where a query, a fragment or a parameter starts.
func cutShort(path string) string {
	if end := strings.IndexFunc(path, func(c rune) bool {
		return c < ' ' || c == 0x7f || strings.ContainsRune(";?#", c)
	}); end >= 0 {
		return path[:end]
	}
	return path
}

// withoutInvisible removes characters that URL parsers or file systems drop: control
// characters and, between dots, format characters. Format characters elsewhere can be part
// of a name.
func withoutInvisible(path string) string {
	drop := func(of func(rune) bool) func(rune) rune {
		return func(c rune) rune {
			if of(c) {
				return -1
			}
			return c
		}
	}
	path = strings.Map(drop(unicode.IsControl), path)
	return eachSegment(path, ".", func(segment string) string {
		if dots := strings.Map(
			drop(func(c rune) bool { return unicode.Is(unicode.Cf, c) }), segment,
		); strings.Trim(dots, ".") == "" {
			return dots
		}
		return segment
	})
}

// lookalikes are converted to ASCII by best-fit mappings but not by NFKC.
var lookalikes = strings.NewReplacer(
	"\u2044", "/", "\u2215", "/", "\u29f8", "/", "\u2216", `\`, "\u29f5", `\`,
	"\u29f9", `\`, "\u00a5", `\`, "\u20a9", `\`, "\u3002", ".", "\uff61", ".",
)

// foldUnicode converts overlong UTF-8 (CVE-2000-0884) and compatibility forms, such as
// full-width dots, to the characters that they represent.
func foldUnicode(path string) string {
	if !strings.ContainsFunc(path, func(c rune) bool { return c >= utf8.RuneSelf }) {
		return path
	}
	var plain strings.Builder
	for i := 0; i < len(path); {
		c, size := utf8.DecodeRuneInString(path[i:])
		if c == utf8.RuneError && size == 1 {
			if long, length, ok := overlong(path[i:]); ok {
				c, size = long, length
				plain.WriteRune(c)
				i += size
				continue
			}
		}
		plain.WriteString(path[i : i+size])
		i += size
	}
	return lookalikes.Replace(norm.NFKC.String(plain.String()))
}

// overlong decodes an ASCII character that is encoded with more bytes than necessary, as
// lenient decoders do, which only use the low six bits of the following bytes.
func overlong(text string) (c rune, length int, ok bool) {
	switch lead := text[0]; {
	case lead&0xe0 == 0xc0:
		c, length = rune(lead&0x1f), 2
	case lead&0xf0 == 0xe0:
		c, length = rune(lead&0x0f), 3
	case lead&0xf8 == 0xf0:
		c, length = rune(lead&0x07), 4
	case lead&0xfc == 0xf8:
		c, length = rune(lead&0x03), 5
	case lead&0xfe == 0xfc:
		c, length = rune(lead&0x01), 6
	default:
		return 0, 0, false
	}
	if len(text) < length {
		return 0, 0, false
	}
	for _, more := range []byte(text[1:length]) {
		c = c<<6 | rune(more&0x3f)
	}
	return c, length, c < utf8.RuneSelf
}

// trimSegments removes spaces and dots at the end of names, as Windows does, and spaces
// around dots.
func trimSegments(path string) string {
	return eachSegment(path, " .\t", func(segment string) string {
		if dots := strings.Trim(segment, " \t"); strings.Trim(dots, ".") == "" {
			return dots
		}
		return strings.TrimRight(segment, " .\t")
	})
}

func mergeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// resolveDots implements RFC 3986 §5.2.4.
func resolveDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var kept []string
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		isLast := i == len(segments)-1
		switch segment {
		case ".", "..":
			if segment == ".." && len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
			if isLast {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// withoutAuthority interprets //host/path as a reference without a scheme (RFC 3986 §4.2),
// as `new URL(req.url, base)` does.
func withoutAuthority(path string) string {
	if !strings.HasPrefix(path, "//") {
		return path
	}
	_, rest, _ := strings.Cut(path[2:], "/")
	return "/" + rest
}

// withoutSlashesAndAuthority ignores all slashes before the authority, as the URL standard
// does.
func withoutSlashesAndAuthority(path string) string {
	if !strings.HasPrefix(path, "//") {
		return path
	}
	_, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	return "/" + rest
}

func eachSegment(path, marks string, rewrite func(string) string) string {
	if !strings.ContainsAny(path, marks) {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = rewrite(segment)
	}
	return strings.Join(segments, "/")
}

// keepSegments encodes dot segments and empty segments so that Caddy's matchers keep them,
// as some servers do.
func keepSegments(path string) string {
	if !strings.Contains(path, "/.") && !strings.Contains(path, "//") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		switch {
		case segment == "." || segment == "..":
			segments[i] = strings.ReplaceAll(segment, ".", "%2e")
		case segment == "" && i > 0 && i < len(segments)-1:
			segments[i] = "%2f"
		}
	}
	return strings.Join(segments, "/")
}

// scripts returns the beginnings of a path that a PHP or CGI server may run as a script,
// with the rest as PATH_INFO (RFC 3875 §4.1.5): those with the extension of a script or, if
// anyExtension is set, with any extension.
func scripts(path string, anyExtension bool) (found []string) {
	for start, more := 0, true; more; {
		segment, _, slash := strings.Cut(path[start:], "/")
		for end := scriptEnd(segment, 0, slash, anyExtension); end > 0; end = scriptEnd(
			segment, end, slash, anyExtension,
		) {
			found = append(found, path[:start+end])
		}
		start, more = start+len(segment)+1, slash
	}
	return found
}

// scriptsOf returns the scripts in all interpretations of the path, with the same limits.
func scriptsOf(r *http.Request, anyExtension bool) (found []string, err error) {
	paths, err := readings(r)
	size := 0
	for _, path := range paths {
		for _, script := range scripts(path, anyExtension) {
			if slices.Contains(found, script) {
				continue
			}
			if size += len(script); len(found) == maxReadings || size > maxReadingBytes {
				return nil, errReadings
			}
			found = append(found, script)
		}
	}
	return found, err
}

// scriptEnd returns the end of the next script name in a segment, or 0. With anyExtension,
// the name must be followed by a slash.
func scriptEnd(segment string, from int, slash, anyExtension bool) int {
	for {
		dot := strings.IndexByte(segment[from:], '.')
		if dot < 0 {
			return 0
		}
		dot += from
		end := len(segment)
		if next := strings.IndexByte(segment[dot+1:], '.'); next >= 0 {
			end = dot + 1 + next
		}
		extension := segment[dot+1 : end]
		isLast := end == len(segment)
		if (slash || !isLast) && isScript(extension) ||
			anyExtension && slash && isLast && dot > 0 && extension != "" && unicode.IsLetter(rune(extension[0])) {
			return end
		}
		if from = end; isLast {
			return 0
		}
	}
}

// isScript reports whether servers run files with this extension.
func isScript(extension string) bool {
	switch extension = strings.ToLower(extension); extension {
	case "cgi", "fcgi", "pl", "py", "rb", "lua", "sh", "asp", "aspx", "ashx", "asmx", "jsp", "jspx", "cfm", "exe",
		"dll", "phtml", "phar":
		return true
	}
	return strings.HasPrefix(extension, "php")
}
