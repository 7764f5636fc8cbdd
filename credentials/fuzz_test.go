package credentials_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
)

// Whatever a client sends, one token or none is read, with an error or without, and none is left
// after all were removed. Other cookies stay.
func FuzzSources(f *testing.F) {
	for _, cookie := range []string{
		"t=a.b.c", "t.0=a.; t.1=b.c", "t=chunks-2; tC1=a; tC2=b", `t="Bearer a.b.c"`, "t=a; t.0=b", "t.1=a", "t.x=1",
		"t=chunks-99; tC99=x", ";=;t;t.=;t.-1=a", "t=Bearer%20a; t=b",
	} {
		f.Add(cookie, "Bearer a.b.c", "x.y.z", "q=1")
	}
	f.Add("", "Basic YTpi, Bearer x", "Bearer", "q=%zz&q")
	f.Add("", "a b", "Token a,b", "")
	f.Fuzz(func(t *testing.T, cookie, authorization, other, query string) {
		sources := credentials.Sources{
			{Header: "Authorization", Scheme: "Bearer"}, {Header: "Authorization", NoScheme: true},
			{Header: "X-Token"}, {Cookie: "t"}, {Query: "q"},
		}
		r := &http.Request{URL: &url.URL{RawQuery: query}, Header: http.Header{
			"Authorization": {authorization}, "X-Token": {other}, "Cookie": {"before=1; " + cookie, "after=2"},
		}}
		strict, first := sources.Read(r), sources.ReadFirst(r)
		for _, c := range []credentials.Credential{strict, first} {
			if (c.Token != "") != (c.Source != nil) || c.Err != nil && c.Token != "" {
				t.Errorf("read %+v", c)
			}
		}
		if strict.Token != "" && strict.Token != first.Token {
			t.Errorf("strictly %q, first %q", strict.Token, first.Token)
		}
		sources.Strip(r)
		if left := sources.Read(r); left.Token != "" || left.Err != nil {
			t.Errorf("left are %q, %v, of %v", left.Token, left.Err, r.Header)
		}
		kept := strings.Join(r.Header["Cookie"], "; ")
		if !strings.HasPrefix(kept, "before=1") || !strings.HasSuffix(kept, "after=2") {
			t.Errorf("the other cookies are %q", kept)
		}
	})
}
