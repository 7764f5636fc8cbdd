package answer

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// refusalsPerMinute is how many refusals a [RefusalLog] lets through.
const refusalsPerMinute = 60

// RefusalLog chooses the refusals that are logged at info level: a limited number a minute, so that
// a flood does not fill the log.
type RefusalLog struct {
	// Issuer is the only issuer whose tokens are accepted, or empty.
	Issuer string
	// Now returns the time.
	Now func() time.Time

	mu      sync.Mutex
	minute  time.Time // when the current minute began
	logged  int       // in it
	omitted int       // since a refusal was logged
}

// take reports whether a refusal is logged, and how many before it were not.
func (l *RefusalLog) take() (logs bool, omitted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.Now(); now.Sub(l.minute).Abs() >= time.Minute {
		l.minute, l.logged = now, 0
	}
	if l.logged >= refusalsPerMinute {
		l.omitted++
		return false, 0
	}
	l.logged++
	omitted, l.omitted = l.omitted, 0
	return true, omitted
}

// log logs a refusal at info level, if there is room.
func (l *RefusalLog) log(to *zap.Logger, r *http.Request, fields []zap.Field) (logs bool) {
	logs, omitted := l.take()
	if !logs {
		return false
	}
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	fields = append(fields, zap.String("client_ip", client))
	if l.Issuer != "" {
		fields = append(fields, zap.String("issuer", l.Issuer))
	}
	if omitted > 0 {
		fields = append(fields, zap.Int("not_logged_before", omitted))
	}
	to.Info("request refused", fields...)
	return true
}
