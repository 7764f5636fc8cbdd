package accounts

import (
	"context"
	"errors"

	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// Keyring lets users manage passkeys and use them: to log in, as a second factor after a password, and
// for what requires one. [passkey.Passkeys] keeps and verifies them.
type Keyring struct {
	*site
	sessions *Sessions
	logIns   *LogIns
	factors  *Factors
	attempts *Attempts
	passkeys *passkey.Passkeys
}

func newKeyring(s *Service) *Keyring {
	return &Keyring{
		site: s.site, sessions: s.Sessions, logIns: s.LogIns, factors: s.Factors, attempts: s.Attempts,
		passkeys: &passkey.Passkeys{
			Records: func() store.RecordStore { return s.Users() }, Now: s.Now, Issuer: s.Config.Issuer,
		},
	}
}

// Of returns the passkeys of a user, the oldest first.
func (k *Keyring) Of(ctx context.Context, userID string) ([]passkey.Passkey, error) {
	all, err := k.passkeys.Of(ctx, userID)
	return all, StoreRefusal(err)
}

func inSession(sessionID string) passkey.Use {
	return passkey.Use{Purpose: passkey.ToRegister, Of: sessionID}
}

// CreationOptions returns the options with which the browser of a user makes a passkey. The caller has
// made sure by [LogIns.Confirm] that the user is present. [Factors.Guard] may refuse it.
func (k *Keyring) CreationOptions(
	ctx context.Context, party *passkey.Party, user store.User, sessionID string,
) (any, error) {
	if err := k.factors.Guard(ctx, party, user, sessionID); err != nil {
		return nil, err
	}
	options, err := k.passkeys.CreationOptions(ctx, party, inSession(sessionID), user.ID, user.Email)
	return options, StoreRefusal(err)
}

// Add adds a passkey that the user's browser has made by these options, and tells the user by mail. The
// session has then proved the passkey, so that the user can go on and add another one.
func (k *Keyring) Add(
	ctx context.Context, party *passkey.Party, user store.User, sessionID, name string, credential []byte, asker Asker,
) (made passkey.Passkey, err error) {
	if err = k.factors.Guard(ctx, party, user, sessionID); err != nil {
		return made, err
	}
	made, err = k.passkeys.Add(ctx, party, inSession(sessionID), user.ID, name, credential)
	if err == nil { // the account may have been recovered in the meantime, which suspends passkeys
		if err = k.added(ctx, user, sessionID, made); err != nil {
			err = errors.Join(err, k.passkeys.Remove(context.WithoutCancel(ctx), user.ID, made.ID))
		}
	}
	if err != nil {
		return made, StoreRefusal(err)
	}
	k.CountEvent("passkey", "added")
	k.Audit("passkey added", user.ID, sessionID, asker.Client, zap.String("passkey", made.ID))
	k.logIns.tell(ctx, letterPasskeyAdded, user, asker)
	return made, nil
}

// added records that the user of a session has proved a passkey that was made in it.
func (k *Keyring) added(ctx context.Context, user store.User, sessionID string, made passkey.Passkey) error {
	session, err := k.sessions.Session(ctx, user.ID, sessionID)
	if err != nil {
		return err
	}
	methods := withMethods(session.Methods, methodsOf(made.Used()))
	if knowsPassword(methods) {
		methods = withFactor(methods, nil)
	}
	return k.factors.authenticated(ctx, user, session, methods)
}

// Rename gives a passkey of a user another name.
func (k *Keyring) Rename(
	ctx context.Context, userID, id, name, sessionID string, client Client,
) (passkey.Passkey, error) {
	changed, err := k.passkeys.Rename(ctx, userID, id, name)
	if err != nil {
		return changed, StoreRefusal(err)
	}
	k.Audit("passkey renamed", userID, sessionID, client, zap.String("passkey", id))
	return changed, nil
}

// Remove removes a passkey of a user, who has proved to be the user, and tells the user by mail. It
// refuses if the user could no longer log in, or if [Factors.Guard] does.
func (k *Keyring) Remove(
	ctx context.Context, party *passkey.Party, user store.User, id, sessionID string, asker Asker,
) error {
	if err := k.factors.Guard(ctx, party, user, sessionID); err != nil {
		return err
	}
	all, err := k.passkeys.Of(ctx, user.ID)
	if err != nil {
		return StoreRefusal(err)
	}
	if user.PasswordHash == "" {
		links, err := IdentitiesOf(ctx, k.Users(), user.ID, k.Now())
		if err != nil {
			return StoreRefusal(err)
		}
		var rest []passkey.Passkey
		for _, other := range all {
			if other.ID != id {
				rest = append(rest, other)
			}
		}
		if len(links) == 0 && party.Usable(all) && !party.Usable(rest) {
			return &refusal.Error{Reason: refusal.LastLogin}
		}
	}
	if err := k.passkeys.Remove(ctx, user.ID, id); err != nil {
		return StoreRefusal(err)
	}
	k.CountEvent("passkey", "removed")
	k.Audit("passkey removed", user.ID, sessionID, asker.Client, zap.String("passkey", id))
	k.logIns.tell(ctx, letterPasskeyRemoved, user, asker)
	return nil
}

// LogInOptions returns the options for a log-in with any passkey that the user chooses. The secret is
// that of the browser or the program, which must send it with the answer.
func (k *Keyring) LogInOptions(ctx context.Context, party *passkey.Party, secret string) (any, error) {
	options, err := k.passkeys.RequestOptions(ctx, party, toLogIn(secret), "", false)
	return options, StoreRefusal(err)
}

func toLogIn(secret string) passkey.Use { return passkey.Use{Purpose: passkey.ToLogIn, Of: secret} }

// LogIn starts a session of the user of a passkey, unless a second factor is needed; see
// [Factors.Enter]. It is none if the device has verified its user, which are two factors.
func (k *Keyring) LogIn(
	ctx context.Context, party *passkey.Party, secret string, credential []byte, asker Asker,
) (*Grant, error) {
	used, err := k.verify(ctx, party, toLogIn(secret), "", false, credential, asker.Client)
	if err != nil {
		return nil, err
	}
	user, err := k.Users().User(ctx, used.UserID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (user.Disabled || used.Suspended) {
		k.Audit("passkey refused", used.UserID, "", asker.Client, zap.String("passkey", used.ID))
		return nil, refusal.New(refusal.Passkey, "the user is disabled, or the passkey is suspended")
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	if k.Config.mustVerify(user) {
		return nil, k.logIns.askToVerify(ctx, user, asker)
	}
	return k.factors.Enter(ctx, Entry{User: user, Methods: methodsOf(used)}, asker.Client)
}

// methodsOf returns the methods that the use of a passkey proves.
func methodsOf(used passkey.Used) []string {
	methods := []string{MethodHardwareKey, MethodPresence}
	if used.Synced() {
		methods[0] = MethodSoftwareKey
	}
	if used.Verified {
		methods = append(methods, MethodMultiple)
	}
	return methods
}

// verify verifies the use of a passkey, and counts failures of the client.
func (k *Keyring) verify(
	ctx context.Context, party *passkey.Party, use passkey.Use, userID string, verify bool, credential []byte,
	client Client,
) (passkey.Used, error) {
	byClient, wait := k.attempts.Clients.Begin(ctx, network.Key(client.Address), k.Now())
	if wait > 0 {
		k.CountEvent("passkey", "throttled")
		return passkey.Used{}, Throttled("failed log-ins of the client", wait)
	}
	used, err := k.passkeys.Verify(ctx, party, use, userID, verify, credential)
	switch {
	case isReason(err, refusal.PasskeyCloned):
		k.CountEvent("passkey", "cloned")
		k.Audit("passkey cloned", used.UserID, "", client, zap.String("passkey", used.ID))
		k.Log.Warn(
			"a passkey was refused, because its signature counter has not grown: there seems to be a copy of it",
			help.See("passkey-copied"), zap.String("user_id", used.UserID), zap.String("passkey", used.ID),
		)
		return used, err
	case isReason(err, refusal.Passkey, refusal.PasskeyUnverified):
		k.CountEvent("passkey", "refused")
		k.Audit("passkey refused", userID, "", client)
		return used, err
	}
	byClient.Forgive()
	if err != nil {
		return used, StoreRefusal(err)
	}
	k.CountEvent("passkey", "ok")
	k.Audit("passkey used", used.UserID, "", client, zap.String("passkey", used.ID))
	return used, nil
}

func toComplete(waiting *Waiting) passkey.Use {
	return passkey.Use{Purpose: passkey.ToComplete, Of: waiting.id}
}

// CompletionOptions returns the options with which the user of a log-in that waits for a second factor
// uses a passkey.
func (k *Keyring) CompletionOptions(ctx context.Context, party *passkey.Party, waiting *Waiting) (any, error) {
	options, err := k.passkeys.RequestOptions(
		ctx, party, toComplete(waiting), waiting.User.ID, waiting.needsVerified(),
	)
	return options, StoreRefusal(err)
}

// needsVerified reports whether a passkey must have verified its user to be a second factor: not after
// a password, as the passkey is something that the user has.
func (w *Waiting) needsVerified() bool { return !knowsPassword(w.entry.Methods) }

// Complete completes a log-in that waits for a second factor with a passkey.
func (k *Keyring) Complete(
	ctx context.Context, party *passkey.Party, challenge string, credential []byte, client Client,
) (*Grant, error) {
	waiting, err := k.factors.Challenged(ctx, challenge, client)
	if err != nil {
		return nil, err
	}
	if waiting.Enrol {
		return nil, &refusal.Error{Reason: refusal.EnrolmentRequired}
	}
	if err := k.factors.countTry(ctx, waiting.id); err != nil {
		return nil, err
	}
	used, err := k.verify(
		ctx, party, toComplete(waiting), waiting.User.ID, waiting.needsVerified(), credential, client,
	)
	if err == nil {
		err = k.restore(ctx, used, waiting.entry.Methods)
	}
	if err != nil {
		return nil, err
	}
	return k.factors.complete(ctx, waiting, methodsOf(used), client)
}

// restore ends the suspension of a passkey that was used together with the password. With any other
// method, it proves nothing: its maker may be somebody else.
func (k *Keyring) restore(ctx context.Context, used passkey.Used, methods []string) error {
	switch {
	case !used.Suspended:
		return nil
	case !knowsPassword(methods):
		return refusal.New(refusal.Passkey, "the passkey is suspended")
	}
	return StoreRefusal(k.passkeys.Restore(ctx, used.UserID, used.ID))
}

func toStepUp(sessionID string) passkey.Use {
	return passkey.Use{Purpose: passkey.ToStepUp, Of: sessionID}
}

// StepUpOptions returns the options with which the user of a session proves to be the user.
func (k *Keyring) StepUpOptions(
	ctx context.Context, party *passkey.Party, userID, sessionID string,
) (any, error) {
	session, err := k.sessions.Session(ctx, userID, sessionID)
	if err != nil {
		return nil, StoreRefusal(err)
	}
	verify := !knowsPassword(session.Methods) // otherwise the passkey is something that the user has
	options, err := k.passkeys.RequestOptions(ctx, party, toStepUp(sessionID), userID, verify)
	return options, StoreRefusal(err)
}

// StepUp proves two factors of the user of a session, by a passkey. Tokens that are issued from then on
// say so.
func (k *Keyring) StepUp(
	ctx context.Context, party *passkey.Party, user store.User, sessionID string, credential []byte, client Client,
) error {
	session, err := k.sessions.Session(ctx, user.ID, sessionID)
	if err != nil {
		return StoreRefusal(err)
	}
	used, err := k.verify(
		ctx, party, toStepUp(sessionID), user.ID, !knowsPassword(session.Methods), credential, client,
	)
	if err == nil {
		err = k.restore(ctx, used, session.Methods)
	}
	if err != nil {
		return err
	}
	return k.factors.proved(ctx, user, session, methodsOf(used))
}
