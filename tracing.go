package caddyjwt

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// trace adds the decision to the span of the request, which Caddy's directive `tracing` has begun:
// the attributes jwt.result, jwt.reason of a refusal, jwt.issuer and jwt.credential. The user and
// the credential itself are not in it.
func (h *Handler) trace(r *http.Request, who *caller, verdict *verdict) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() {
		return
	}
	result := "allowed"
	attributes := make([]attribute.KeyValue, 0, 4)
	if verdict.refusal != nil {
		result = "refused"
		attributes = append(attributes, attribute.String("jwt.reason", string(verdict.refusal.Reason)))
	}
	attributes = append(attributes, attribute.String("jwt.result", result))
	if who.token == nil {
		span.SetAttributes(attributes...)
		return
	}
	if issuer, ok := who.token.Claims["iss"].(string); ok {
		attributes = append(attributes, attribute.String("jwt.issuer", issuer))
	}
	place := "header"
	switch {
	case who.renewed != nil || who.credential.InCookie():
		place = "cookie"
	case who.credential.ByQuery():
		place = "query"
	}
	span.SetAttributes(append(attributes, attribute.String("jwt.credential", place))...)
}
