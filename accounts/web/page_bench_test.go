package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The log-in page, as a browser requests it. The network is part of it, as in both rows of a comparison.
func BenchmarkLogInPage(b *testing.B) {
	s := sitetest.AccountsSite(b, "")
	for _, language := range []string{"", "de-DE,de;q=0.9,en;q=0.5"} {
		b.Run("language="+language, func(b *testing.B) {
			request := httptest.NewRequest(http.MethodGet, s.URL+"/auth/login", nil)
			request.RequestURI = ""
			request.Header.Set("Accept", "text/html")
			request.Header.Set("Accept-Language", language)
			b.ReportAllocs()
			for b.Loop() {
				response, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					b.Fatal(err)
				}
				if response.StatusCode != http.StatusOK {
					b.Fatal(response.Status)
				}
				_ = response.Body.Close()
			}
		})
	}
}
