package outgoing

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

type traced struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper. If the request is sent for one that has a span, it has a
// span of its own below that, and passes the trace on (W3C Trace Context). The span has the host,
// and neither the rest of the URL nor an error's text, which may have secrets.
func (t traced) RoundTrip(request *http.Request) (*http.Response, error) {
	parent := trace.SpanFromContext(request.Context())
	if !parent.SpanContext().IsValid() {
		return t.RoundTripper.RoundTrip(request)
	}
	ctx, span := parent.TracerProvider().Tracer(module).Start(
		request.Context(), request.Method+" "+request.URL.Host, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attribute.String("http.request.method", request.Method),
			attribute.String("server.address", request.URL.Hostname()),
		),
	)
	defer span.End()
	own := request.WithContext(ctx)
	own.Header = request.Header.Clone() // which a transport must not change
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(own.Header))
	response, err := t.RoundTripper.RoundTrip(own)
	if err != nil {
		span.SetStatus(codes.Error, "no answer")
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", response.StatusCode))
	return response, nil
}

// CloseIdleConnections closes unused connections, for http.Client.
func (t traced) CloseIdleConnections() { closeIdle(t.RoundTripper) }
