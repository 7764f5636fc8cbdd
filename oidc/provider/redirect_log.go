package provider

import (
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"go.uber.org/zap"
)

// redirectNotesPause is how often a wrong redirect URI of a client is logged, because anybody can send
// some.
const redirectNotesPause = time.Minute

// noteRedirect logs a redirect URI that is not one of the client's, beside those that are: the user
// only sees that they differ.
func (p *Provider) noteRedirect(client *Client, parameter, presented string, registered []string) {
	if !p.redirectNotes.IsNew(client.ID, p.accounts.Now(), redirectNotesPause) {
		return
	}
	p.log.Warn(
		parameter+" is not one that is registered for the client; they are compared exactly, so register this "+
			"one too if it is the client's",
		help.See("redirect-uri-unknown"), zap.String("client_id", client.ID),
		zap.String("presented", fmt.Sprintf("%.500s", presented)), zap.Strings("registered", registered),
	)
}
