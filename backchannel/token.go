package backchannel

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// Event is the event of a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
const Event = "http://schemas.openid.net/event/backchannel-logout"

// maxIDBytes is the maximum length of jti, sid and sub.
const maxIDBytes = 1024

// ParseLogout checks the claims of a logout token whose signature, issuer, audience and times
// were verified (§2.6), and which is not older than maxAge. It returns its `jti` and the
// log-out, without Until.
func ParseLogout(claims jwt.Claims, now time.Time, maxAge time.Duration) (id string, logout Logout, err error) {
	texts := make(map[string]string)
	for _, name := range []string{"jti", "sid", "sub"} {
		text, isText := claims[name].(string)
		if number, isNumber := claims[name].(int64); isNumber && name == "sub" { // as issuers have it in tokens
			text, isText = jwt.ClaimText(number), true
		}
		if claims[name] != nil && (!isText || text == "" || len(text) > maxIDBytes) {
			return "", logout, fmt.Errorf("%s is not a string of 1 to %d bytes", name, maxIDBytes)
		}
		texts[name] = text
	}
	events, _ := claims["events"].(jwt.Claims)
	_, isEvent := events[Event].(jwt.Claims)
	_, hasNonce := claims["nonce"]
	issued, hasIssued := issuedAt(claims)
	switch {
	case !isEvent:
		return "", logout, errors.New("events does not have the object " + Event)
	case hasNonce:
		return "", logout, errors.New("it has a nonce, so it may be an ID token")
	case texts["sid"] == "" && texts["sub"] == "":
		return "", logout, errors.New("it has neither sid nor sub")
	case texts["jti"] == "":
		return "", logout, errors.New("jti is missing")
	case !hasIssued:
		return "", logout, errors.New("iat is missing")
	case now.Sub(issued) > maxAge:
		return "", logout, fmt.Errorf("iat is more than %s ago", maxAge)
	}
	return texts["jti"], Logout{SessionID: texts["sid"], Subject: texts["sub"], Issued: issued}, nil
}

// issuedAt returns `iat`, which the verifier has checked to be a number and not in the future.
func issuedAt(claims jwt.Claims) (time.Time, bool) {
	switch seconds := claims["iat"].(type) {
	case int64:
		return time.Unix(seconds, 0), true
	case float64:
		return time.Unix(int64(math.Ceil(seconds)), 0), true
	}
	return time.Time{}, false
}
