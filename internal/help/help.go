// Package help links log lines to their entries in docs/troubleshooting.md.
package help

import (
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"go.uber.org/zap"
)

// See returns the field `help` of a log line, the URL of its entry.
func See(entry string) zap.Field { return zap.String("help", refusal.HelpURL+entry) }
