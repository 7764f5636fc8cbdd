package caddyjwt

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"github.com/caddy-jwt/caddy-jwt/authorizers"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Requirement is a rule about the claims. Exactly one of Scope, AnyScope, Role, Claim, ACR,
// Expression and AuthorizerRaw must be set.
type Requirement struct {
	// Scope lists scopes that the token must all have (RFC 6749 §3.3). They are in the
	// claim `scope`, which is a string of words separated by spaces or a list (RFC 9068
	// §2.2.3), or otherwise in `scp`; `scope_claim` changes that.
	Scope []string `json:"scope,omitempty"`

	// AnyScope lists scopes of which the token must have at least one.
	AnyScope []string `json:"any_scope,omitempty"`

	// Role lists roles of which the user must have at least one. They are in the claim
	// `roles`, a list or a string (RFC 9068 §2.2.3.1); `role_claim` changes that.
	Role []string `json:"role,omitempty"`

	// Claim is the path of a claim whose value must be one of Values. If it is a list, one
	// of its elements must be.
	Claim string `json:"claim,omitempty"`

	// Values are the accepted values of Claim, compared as text.
	Values []string `json:"values,omitempty"`

	// ACR lists classes of authentication of which the claim `acr` must be one (RFC 9470), such as
	// `mfa` in tokens of accounts with a second factor. A program gets 401
	// `insufficient_user_authentication`; a browser with a session of the accounts is asked for the
	// second factor.
	ACR []string `json:"acr,omitempty"`

	// Within is how long ago the user may have authenticated, by the claim `auth_time`, for ACR.
	// Whole seconds. Default: any time.
	Within caddy.Duration `json:"within,omitempty"`

	// Expression is a [CEL](https://cel.dev) expression that must be true. It can use the
	// claims as `claims`, and Caddy's placeholders of the request: `claims.sub ==
	// {http.request.uri.path.1}`. If a claim is absent, the expression fails; to test for
	// it, use `has(claims.name)`. Write placeholders without quotes, otherwise the config
	// is refused; `\{…}` is literal text. If a placeholder is unknown for a request, the
	// expression fails. If the expression uses the path, it must be true for every
	// interpretation of the path by the upstream (`/alice/../bob`, `/alice%2f..%2fbob`). A
	// placeholder that was derived from the path earlier, for example by `map` or `vars`,
	// has only one value; then ambiguous paths are refused.
	Expression string `json:"expression,omitempty"`

	// AuthorizerRaw is a module in the namespace `jwt.authorizers` that decides, such as `http`,
	// which asks a service. If the path could be read in different ways, the request is refused
	// with 400.
	AuthorizerRaw json.RawMessage `json:"authorizer,omitempty" caddy:"namespace=jwt.authorizers inline_key=module"`

	// Issuer restricts the requirement to tokens of one issuer, by the value of `iss`. Set
	// it if several issuers are accepted, because each of them can give its users any role,
	// scope or claim. Of an issuer with `*`, it is all tenants, as written there, or one of
	// them. Default: any accepted issuer.
	Issuer string `json:"issuer,omitempty"`

	scopesIn, rolesIn claimsOf

	authorizer   authorizers.Authorizer
	audit        *zap.Logger // with an authorizer
	program      cel.Program
	placeholders map[string]string                         // CEL variable to placeholder
	reads        struct{ current, original, derived bool } // which forms of the path the placeholders use
}

// judge applies the rules to an identified caller: first the origin rule, if the browser sent
// the credential automatically, and then the requirements.
func (h *Handler) judge(r *http.Request, who *caller) *refusal.Error {
	if who.byCookie() {
		if failure := h.checkOrigin(r); failure != nil {
			return failure
		}
	}
	for _, requirement := range h.Require {
		if err := requirement.met(r, who.token); err != nil {
			return refusal.Of(err)
		}
	}
	return nil
}

func (q *Requirement) provision() error {
	kinds := 0
	for _, set := range []bool{
		len(q.Scope) > 0, len(q.AnyScope) > 0, len(q.Role) > 0, q.Claim != "", q.Expression != "",
		q.authorizer != nil, len(q.ACR) > 0,
	} {
		if set {
			kinds++
		}
	}
	if q.Claim == "" && len(q.Values) > 0 {
		return fmt.Errorf("`require claim` has values but no claim name")
	}
	if kinds != 1 {
		return fmt.Errorf("it must have exactly one of scope, any scope, role, claim, acr and expression; " +
			"write a separate `require` for each")
	}
	if q.Claim != "" && len(q.Values) == 0 {
		return fmt.Errorf("`require claim %s` requires at least one value", q.Claim)
	}
	if err := q.checkACR(); err != nil {
		return err
	}
	if q.authorizer != nil && q.Issuer != "" {
		return fmt.Errorf("an authorizer does not take an issuer; it gets the claims, of which iss is one")
	}
	if q.Expression != "" && q.Issuer != "" {
		return fmt.Errorf(
			"`require expression` does not take an issuer; compare it in the expression: claims.iss == %q", q.Issuer,
		)
	}
	if slices.Contains(q.Role, "") {
		return fmt.Errorf("`require role` has an empty role; remove it")
	}
	if slices.ContainsFunc(slices.Concat(q.Scope, q.AnyScope), func(scope string) bool { return !jwt.IsScope(scope) }) {
		return fmt.Errorf("a scope is one word of visible ASCII without quotes (RFC 6749 §3.3)")
	}
	if q.Expression != "" {
		return q.compile()
	}
	return nil
}

var (
	escapedPlaceholder = regexp.MustCompile(`\\{([a-zA-Z][\w.-]*)}`)
	// currentPath and originalPath match placeholders of the path; pathless matches
	// placeholders that do not depend on it. Any other placeholder may, such as a variable
	// derived from the path.
	currentPath  = regexp.MustCompile(`^http\.request\.uri($|[._])`)
	originalPath = regexp.MustCompile(`^http\.request\.orig_uri($|[._])`)
	pathless     = regexp.MustCompile(
		`^(env|file|system|time)\.|^http\.auth\.|` +
			`^http\.request\.((orig_)?(method|host|hostport|port|proto|scheme)|` +
			`(header|cookie|host|remote|tls|(orig_)?uri\.query)\..*|` +
			`(remote|uuid|client_ip|local|body|duration|(orig_)?uri\.query)|` +
			`(local|duration)[._].*|client_ip)$`,
	)
	// unset matches placeholders that are known but may have no value.
	unset = regexp.MustCompile(`^(http\.request\.cookie|http\.vars|vars|http\.auth)\.`)
)

// compile replaces each placeholder by a CEL variable, which is evaluated only if the
// expression uses it.
func (q *Requirement) compile() error {
	q.placeholders = make(map[string]string)
	options := []cel.EnvOption{
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.CustomTypeAdapter(claimAdapter{}),
		ext.Strings(), ext.Bindings(), ext.Lists(), ext.Math(),
	}
	source := config.Placeholder.ReplaceAllStringFunc(q.Expression, func(found string) string {
		part := config.Placeholder.FindStringSubmatch(found)
		name := fmt.Sprintf("placeholder_%d", len(q.placeholders))
		q.placeholders[name] = part[2]
		switch key := part[2]; {
		case pathless.MatchString(key):
		case currentPath.MatchString(key):
			q.reads.current = true
		case originalPath.MatchString(key):
			q.reads.original = true
		default:
			q.reads.derived = true
		}
		options = append(options, cel.Variable(name, cel.DynType))
		return part[1] + name
	})
	source = escapedPlaceholder.ReplaceAllString(source, "{$1}")
	env, err := cel.NewEnv(options...)
	if err != nil {
		return err
	}
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		return fmt.Errorf("the expression does not compile%s: %s", available(issues), q.asWritten(issues.Err().Error()))
	}
	read := checked.NativeRep().ReferenceMap()
	for name, written := range q.placeholders {
		if !strings.Contains(written, ".") {
			return fmt.Errorf("unknown placeholder {%s}; write a claim as claims.%s, "+
				"and a placeholder of the request as in {http.request.method}", written, written)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(read)), func(r *ast.ReferenceInfo) bool {
			return r.Name == name
		}) {
			return fmt.Errorf("the placeholder {%s} is inside quotes, so it would be compared literally; "+
				"remove the quotes, or write \\{%s} if you want the literal text", written, written)
		}
	}
	if kind := checked.OutputType(); kind != cel.BoolType && kind != cel.DynType {
		return fmt.Errorf("the expression returns %s; it must return true or false", kind)
	}
	q.program, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize))
	return err
}

// available returns the names that an expression can use, if it uses another.
func available(issues *cel.Issues) string {
	for _, issue := range issues.Errors() {
		if strings.HasPrefix(issue.Message, "undeclared reference") {
			return " (available: claims, and placeholders such as {http.request.method})"
		}
	}
	return ""
}

// asWritten restores the placeholders in a message of the compiler.
func (q *Requirement) asWritten(text string) string {
	for name, written := range q.placeholders {
		text = regexp.MustCompile(name+`\b`).ReplaceAllLiteralString(text, "{"+written+"}")
	}
	return text
}

// met returns nil if the claims satisfy the requirement, otherwise the refusal.
func (q *Requirement) met(r *http.Request, user *jwt.Token) error {
	claims := user.Claims
	if q.Issuer != "" && claims["iss"] != q.Issuer && !ofTenant(user, q.Issuer) {
		return q.unmetByIssuer()
	}
	switch {
	case q.Scope != nil:
		granted := jwt.Scopes(claims, q.scopesIn.of(user)...)
		if slices.ContainsFunc(q.Scope, func(s string) bool { return !slices.Contains(granted, s) }) {
			return &refusal.Error{
				Reason: refusal.Scope, Scope: strings.Join(q.Scope, " "),
				Detail: fmt.Sprintf("requires all of %q", q.Scope),
			}
		}
	case q.AnyScope != nil:
		if !intersect(jwt.Scopes(claims, q.scopesIn.of(user)...), q.AnyScope) {
			return &refusal.Error{
				Reason: refusal.Scope, Scope: strings.Join(q.AnyScope, " "),
				Detail: fmt.Sprintf("requires one of %q", q.AnyScope),
			}
		}
	case q.Role != nil:
		paths := q.rolesIn.of(user)
		if !intersect(rolesOf(claims, paths), q.Role) {
			return refusal.New(refusal.Role, "requires one of %q in %s", q.Role, strings.Join(paths, " or "))
		}
	case q.Claim != "":
		value, _ := claims.Lookup(q.Claim)
		if !intersect(jwt.Texts(value), q.Values) {
			return refusal.New(refusal.Claim, "requires one of %q in %s", q.Values, q.Claim)
		}
	case q.ACR != nil:
		return q.metByACR(claims)
	case q.authorizer != nil:
		return q.authorized(r, user)
	default:
		return q.metByExpression(r, claims)
	}
	return nil
}

// claimsOf are the claims with the scopes, or with the roles, of a user.
type claimsOf struct {
	tokens   []string // the paths in tokens of issuers
	own      []string // those in credentials of this site
	accounts string   // the issuer of the accounts, which is the site itself; empty for none
}

// of returns the paths of the claims for a user.
func (c *claimsOf) of(user *jwt.Token) []string {
	issuer := user.Issuer()
	if issuer == nil || c.accounts != "" && issuer.Name == c.accounts {
		return c.own
	}
	return c.tokens
}

// rolesOf returns the roles in the first of the claims that has any.
func rolesOf(claims jwt.Claims, paths []string) []string {
	for _, path := range paths {
		value, _ := claims.Lookup(path)
		if roles := jwt.Texts(value); len(roles) > 0 {
			return roles
		}
	}
	return nil
}

// ofTenant reports whether the token is of a tenant of the issuer with this name.
func ofTenant(user *jwt.Token, name string) bool {
	issuer := user.Issuer()
	return issuer != nil && issuer.MultiTenant && issuer.Name == name
}

// unmetByIssuer returns the refusal of a token from another issuer.
func (q *Requirement) unmetByIssuer() error {
	const detail = "only a token from %s can satisfy the rule"
	switch {
	case q.Role != nil:
		return refusal.New(refusal.Role, detail, q.Issuer)
	case q.Claim != "":
		return refusal.New(refusal.Claim, detail, q.Issuer)
	case q.ACR != nil:
		return q.unmetByACR(fmt.Sprintf(detail, q.Issuer))
	}
	return &refusal.Error{
		Reason: refusal.Scope, Scope: strings.Join(slices.Concat(q.Scope, q.AnyScope), " "),
		Detail: fmt.Sprintf(detail, q.Issuer),
	}
}

// metByExpression evaluates the expression for every interpretation of the path.
func (q *Requirement) metByExpression(r *http.Request, claims jwt.Claims) error {
	if err := q.evaluate(r, claims); err != nil || !q.readsPath() {
		return err
	}
	current, original := r, originalRequest(r)
	rewritten := original.URL.Path != current.URL.Path
	for _, path := range []struct {
		read    bool
		request *http.Request
	}{{q.reads.current || q.reads.derived, current}, {q.reads.original || q.reads.derived && rewritten, original}} {
		if !path.read || ordinary(path.request.URL) {
			continue
		}
		paths, err := readings(path.request)
		if err != nil || len(paths) > 1 && (q.reads.derived || q.reads.current && q.reads.original && rewritten) {
			return refusal.New(refusal.Expression, "%s uses a path that is ambiguous", q.Expression)
		}
		run, err := scriptsOf(path.request, false)
		if err != nil {
			return refusal.New(refusal.Expression, "%s uses a path with too many interpretations", q.Expression)
		}
		for _, reading := range slices.Concat(paths, run) {
			if err := q.evaluate(reread(r, reading), claims); err != nil {
				return refusal.New(
					refusal.Expression, "%s is not satisfied by every interpretation of the path", q.Expression,
				)
			}
		}
	}
	return nil
}

func (q *Requirement) readsPath() bool {
	return q.reads.current || q.reads.original || q.reads.derived
}

// evaluate returns nil if the expression is true.
func (q *Requirement) evaluate(r *http.Request, claims jwt.Claims) error {
	variables := &activation{request: r, claims: claims, placeholders: q.placeholders}
	result, _, err := q.program.Eval(variables)
	switch {
	case variables.unknown != "":
		return refusal.New(refusal.Expression, "%s: unknown placeholder {%s}", q.Expression, variables.unknown)
	case err != nil:
		return refusal.New(refusal.Expression, "%s: %v", q.Expression, err)
	case result != types.True:
		return refusal.New(refusal.Expression, "%s is %v", q.Expression, result)
	}
	return nil
}

// originalRequest returns the request with the path and method that the client sent.
func originalRequest(r *http.Request) *http.Request {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return &original
	}
	return r
}

func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// activation provides the variables of an expression.
type activation struct {
	request      *http.Request
	claims       jwt.Claims
	placeholders map[string]string
	unknown      string // an unknown placeholder that was used
}

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	if name == "claims" {
		return a.claims, true
	}
	key, known := a.placeholders[name]
	if !known {
		return nil, false
	}
	replacer := a.request.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	value, known := replacer.Get(key)
	if !known && !unset.MatchString(key) {
		a.unknown = key
	}
	return value, true
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// claimAdapter converts claims for CEL: lists to lists, objects to maps.
type claimAdapter struct{}

// NativeToValue implements types.Adapter.
func (a claimAdapter) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case jwt.Claims:
		return types.NewStringInterfaceMap(a, v)
	case jwt.List:
		return types.NewDynamicList(a, []any(v))
	case json.Number: // beyond int64; a double would make different ones equal
		if number, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return types.Uint(number)
		}
		return types.String(v)
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

// checkIssuer returns an error if the requirement is for an issuer that does not exist.
func (q *Requirement) checkIssuer(issuers []jwt.Issuer) error {
	var names []string
	for _, issuer := range issuers {
		if q.Issuer == "" || q.Issuer == issuer.Name || issuer.Matches(q.Issuer) {
			return nil
		}
		names = append(names, issuer.Name)
	}
	if q.Issuer == "" {
		return nil
	}
	return fmt.Errorf(
		"require … of %s: unknown issuer; write its name exactly as after `issuer`%s",
		q.Issuer, config.Meant(q.Issuer, names...),
	)
}

// Interface guards
var (
	_ cel.Activation = (*activation)(nil)
	_ types.Adapter  = claimAdapter{}
)
