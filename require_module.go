package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/authorizers"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const authorizerNamespace = "jwt.authorizers"

// authorizerNames returns the names of the authorizers that this Caddy has.
func authorizerNames() (names []string) {
	for _, module := range caddy.GetModules(authorizerNamespace) {
		names = append(names, module.ID.Name())
	}
	return names
}

// loadAuthorizer loads the module of the requirement, if it is one.
func (q *Requirement) loadAuthorizer(ctx caddy.Context) error {
	if q.AuthorizerRaw == nil {
		return nil
	}
	loaded, err := ctx.LoadModule(q, "AuthorizerRaw")
	if err != nil {
		return err
	}
	authorizer, ok := loaded.(authorizers.Authorizer)
	if !ok {
		return fmt.Errorf("%T does not authorize requests", loaded)
	}
	q.authorizer, q.audit = authorizer, ctx.Logger().Named("audit")
	return nil
}

// authorized asks the module. It may decide by the path, so that has to have one reading.
func (q *Requirement) authorized(r *http.Request, user *jwt.Token) error {
	for _, request := range []*http.Request{r, originalRequest(r)} {
		if ordinary(request.URL) {
			continue
		}
		if paths, err := readings(request); err != nil || len(paths) > 1 {
			return refusal.New(refusal.Path, "an authorizer decides about it: %s", strings.Join(paths, ", "))
		}
	}
	err := q.authorizer.Authorize(r, user)
	if err == nil {
		return nil
	}
	failure, ok := errors.AsType[*refusal.Error](err)
	if !ok {
		failure = refusal.New(refusal.Authorizer, "%v", err)
	}
	if failure.Reason == refusal.Authorizer {
		q.audit.Info(
			"request denied by the authorizer", zap.String("user_id", user.UserID), zap.String("method", r.Method),
			zap.String("path", r.URL.Path),
		)
	}
	return failure
}
