package sitetest

import (
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"golang.org/x/crypto/argon2"
)

const GoodPassword = "correct horse battery"

// AccountsBody returns the body of a site with accounts; store is the path of their file.
func AccountsBody(store, options string) string {
	return `
		jwt /todos/* {
			leeway 0s
			accounts {
				store file ` + store + `
				` + withSignup(options) + `
			}
		}
		metrics /metrics
		respond /todos/* "user=[{http.auth.user.id}] roles=[{http.auth.user.roles}] ` +
		`cookies=[{http.request.header.Cookie}]"`
}

// withSignup opens sign-up unless the options set it.
func withSignup(options string) string {
	for _, given := range []string{"signup open", "signup closed", "signup {", "signup sometimes"} {
		if strings.Contains(options, given) {
			return options
		}
	}
	return "signup open\n" + options
}

func AccountsSite(t testing.TB, options string) *Site {
	t.Helper()
	return Serve(t, AccountsBody(filepath.Join(TempDir(t), "users.db"), options))
}

// Post sends JSON.
func (s *Site) Post(path string, body any, headers ...string) Reply {
	s.T.Helper()
	text, isText := body.(string)
	if !isText {
		text = Marshal(s.T, body)
	}
	return s.Send(http.MethodPost, path, text, append([]string{"Content-Type: application/json"}, headers...)...)
}

// Send sends a body, with headers given as "Name: value".
func (s *Site) Send(method, path, body string, headers ...string) Reply {
	s.T.Helper()
	return s.exchange(s.roundTrip, method, s.URL+path, strings.NewReader(body), headers)
}

// exchange sends a request with a function. Unlike [Site.Get], it may be called by several
// goroutines, so an error does not end the test.
func (s *Site) exchange(
	send func(*http.Request) (*http.Response, error), method, location string, body io.Reader, headers []string,
) Reply {
	s.T.Helper()
	none := Reply{Header: make(http.Header)}
	request, err := http.NewRequest(method, location, body)
	if err != nil {
		s.T.Error(err)
		return none
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
		if name == "Host" {
			request.Host = value
		}
	}
	response, err := send(request)
	if err != nil {
		s.T.Error(err)
		return none
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.T.Error(err)
	}
	return Reply{response.StatusCode, response.Header, string(text)}
}

func CredentialsOf(email string) JSON {
	return JSON{"email": email, "password": GoodPassword}
}

type Tokens struct {
	Token, TokenType, RefreshToken string
	ExpiresIn                      int
}

func (a Reply) Tokens(t testing.TB) (found Tokens) {
	t.Helper()
	if err := stdjson.Unmarshal([]byte(a.Body), &found); err != nil || found.Token == "" || found.RefreshToken == "" {
		t.Fatalf("no tokens in %d %s", a.Status, a.Body)
	}
	return found
}

func (a Reply) ErrorBody(t testing.TB) (body answer.ErrorBody) {
	t.Helper()
	if err := stdjson.Unmarshal([]byte(a.Body), &body); err != nil {
		t.Fatalf("no error body in %d %s", a.Status, a.Body)
	}
	return body
}

// SignedUp creates an account and logs in.
func (s *Site) SignedUp(email string) Tokens {
	s.T.Helper()
	s.MustAnswer(201, s.Post("/auth/signup", CredentialsOf(email)), "sign-up")
	return s.LoggedIn(email)
}

func (s *Site) LoggedIn(email string) Tokens {
	s.T.Helper()
	return s.Post("/auth/login", CredentialsOf(email)).Tokens(s.T)
}

// WeakArgon2id returns a hash with parameters that are too weak today.
func WeakArgon2id(password string) string {
	salt := []byte("0123456789abcdef")
	key := argon2.IDKey([]byte(password), salt, 1, 1024, 1, 32)
	return fmt.Sprintf(
		"$argon2id$v=19$m=1024,t=1,p=1$%s$%s", base64.RawStdEncoding.EncodeToString(salt),
		base64.RawStdEncoding.EncodeToString(key),
	)
}

func FormOf(email string) url.Values {
	return url.Values{"email": {email}, "password": {GoodPassword}}
}
