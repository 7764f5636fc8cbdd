package caddytest

import (
	"errors"
	"io"
	"net/http"
	"syscall"
	"time"
)

const (
	dropsEnd   = 5 * time.Second // how long a reload may drop connections on a busy machine
	retryPause = 10 * time.Millisecond
)

// RoundTrip sends a request, and sends it again if its connection was closed before a response:
// at a config reload, Caddy completes requests that it has begun, and drops connections that it
// has not read yet.
func RoundTrip(transport http.RoundTripper, request *http.Request) (*http.Response, error) {
	deadline := time.Now().Add(dropsEnd)
	for try := 1; ; try++ {
		response, err := transport.RoundTrip(request)
		dropped := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
		again := dropped && time.Now().Before(deadline) || errors.Is(err, syscall.ECONNREFUSED) && try < 3
		if !again || request.Body != nil && request.GetBody == nil {
			return response, err
		}
		time.Sleep(retryPause)
		if request.GetBody != nil {
			body, err := request.GetBody()
			if err != nil {
				return nil, err
			}
			request = request.Clone(request.Context())
			request.Body = body
		}
	}
}

// Transport is http.DefaultTransport with [RoundTrip].
type Transport struct{}

// RoundTrip implements http.RoundTripper.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	return RoundTrip(http.DefaultTransport, request)
}
