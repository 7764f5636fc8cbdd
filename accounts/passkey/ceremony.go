package passkey

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// account is a user as the library takes it.
type account struct {
	handle      []byte
	name        string
	credentials []webauthn.Credential
}

func (a account) WebAuthnID() []byte                         { return a.handle }
func (a account) WebAuthnName() string                       { return a.name }
func (a account) WebAuthnDisplayName() string                { return a.name }
func (a account) WebAuthnCredentials() []webauthn.Credential { return a.credentials }

// accountOf returns a user with the passkeys for the party's domain.
func (p *Passkeys) accountOf(ctx context.Context, party *Party, userID, name string) (account, []Passkey, error) {
	handle, err := p.handle(ctx, userID)
	if err != nil {
		return account{}, nil, err
	}
	all, err := p.Of(ctx, userID)
	a := account{handle: handle, name: name}
	for _, passkey := range all {
		if passkey.Party == party.ID {
			a.credentials = append(a.credentials, passkey.credential())
		}
	}
	return a, all, err
}

// libraryFor returns the library for the response of a page, whose origin must be allowed.
func (party *Party) libraryFor(client protocol.CollectedClientData) (*webauthn.WebAuthn, error) {
	if !party.Allows(client.Origin) {
		return nil, refusal.New(refusal.Passkey, "it was used on a page of %s", refusal.Quoted(client.Origin))
	}
	return party.library(client.Origin)
}

// library returns the library for responses of pages of an origin, or to make options.
func (party *Party) library(from string) (*webauthn.WebAuthn, error) {
	yes := true
	timeout := webauthn.TimeoutConfig{Timeout: Lifetime, TimeoutUVD: Lifetime}
	return webauthn.New(&webauthn.Config{
		RPID: party.ID, RPDisplayName: party.Name, RPOrigins: []string{from},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			RequireResidentKey: &yes, ResidentKey: protocol.ResidentKeyRequirementRequired,
			UserVerification: protocol.VerificationPreferred,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
		// password managers return some that nobody has asked for
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// algorithms of new passkeys.
var algorithms = webauthn.CredentialParametersRecommendedL3()

// CreationOptions returns the options with which a browser makes a passkey
// (PublicKeyCredentialCreationOptionsJSON), for a user of this name.
func (p *Passkeys) CreationOptions(ctx context.Context, party *Party, use Use, userID, name string) (any, error) {
	user, all, err := p.accountOf(ctx, party, userID, name)
	if err != nil {
		return nil, err
	}
	if len(all) >= MaxPerUser {
		return nil, &refusal.Error{Reason: refusal.TooManyPasskeys}
	}
	challenge, err := p.challenge(ctx, party, use)
	if err != nil {
		return nil, err
	}
	library, err := party.library("https://" + party.ID)
	if err != nil {
		return nil, err
	}
	made, _, err := library.BeginRegistration(
		user, webauthn.WithExclusions(webauthn.Credentials(user.credentials).CredentialDescriptors()),
		func(options *protocol.PublicKeyCredentialCreationOptions) error {
			options.Challenge, options.Parameters = challenge, algorithms
			return nil
		},
	)
	if err != nil {
		return nil, err
	}
	return made.Response, nil
}

// Add adds a passkey that the user's browser has made: credential is the JSON of its answer
// (RegistrationResponseJSON).
func (p *Passkeys) Add(
	ctx context.Context, party *Party, use Use, userID, name string, credential []byte,
) (made Passkey, err error) {
	response, err := protocol.ParseCredentialCreationResponseBytes(credential)
	if err != nil {
		return made, refused(err)
	}
	client := response.Response.CollectedClientData
	if err := p.check(ctx, client.Challenge, party, use); err != nil {
		return made, err
	}
	user, all, err := p.accountOf(ctx, party, userID, "")
	if err != nil {
		return made, err
	}
	if len(all) >= MaxPerUser {
		return made, &refusal.Error{Reason: refusal.TooManyPasskeys}
	}
	library, err := party.libraryFor(client)
	if err != nil {
		return made, err
	}
	checked, err := library.CreateCredential(user, webauthn.SessionData{
		Challenge: client.Challenge, RelyingPartyID: party.ID, UserID: user.handle,
		UserVerification: protocol.VerificationPreferred, CredParams: algorithms,
	}, response)
	if err != nil {
		return made, refused(err)
	}
	if err := p.take(ctx, client.Challenge); err != nil {
		return made, err
	}
	made = Passkey{
		Party: party.ID, Name: name, AddedAt: p.Now(), Credential: checked.ID, PublicKey: checked.PublicKey,
		SignCount: checked.Authenticator.SignCount, Flags: byte(checked.Flags.ProtocolValue()),
		AAGUID: checked.Authenticator.AAGUID,
	}
	for _, transport := range checked.Transport[:min(len(checked.Transport), 8)] {
		made.Transports = append(made.Transports, string(transport))
	}
	return p.create(ctx, made, userID)
}

// RequestOptions returns the options with which a browser uses a passkey
// (PublicKeyCredentialRequestOptionsJSON): one of a user, or any if userID is empty. The user must be
// verified, as by a fingerprint or a PIN, if verify is set, and otherwise if the device can.
func (p *Passkeys) RequestOptions(
	ctx context.Context, party *Party, use Use, userID string, verify bool,
) (any, error) {
	challenge, err := p.challenge(ctx, party, use)
	if err != nil {
		return nil, err
	}
	library, err := party.library("https://" + party.ID)
	if err != nil {
		return nil, err
	}
	var made *protocol.CredentialAssertion
	with := []webauthn.LoginOption{
		webauthn.WithUserVerification(verification(verify)),
		func(options *protocol.PublicKeyCredentialRequestOptions) error {
			options.Challenge = challenge
			return nil
		},
	}
	if userID == "" {
		made, _, err = library.BeginDiscoverableLogin(with...)
	} else {
		var user account
		if user, _, err = p.accountOf(ctx, party, userID, ""); err != nil {
			return nil, err
		}
		if len(user.credentials) == 0 {
			return nil, &refusal.Error{Reason: refusal.NoPasskey}
		}
		made, _, err = library.BeginLogin(user, with...)
	}
	if err != nil {
		return nil, err
	}
	return made.Response, nil
}

func verification(required bool) protocol.UserVerificationRequirement {
	if required {
		return protocol.VerificationRequired
	}
	return protocol.VerificationPreferred
}

// Used is the use of a passkey.
type Used struct {
	Passkey
	// Verified reports whether the device has verified its user (UV).
	Verified bool
}

// Verify verifies the use of a passkey: credential is the JSON of the browser's answer
// (AuthenticationResponseJSON). It must be a passkey of the user, or of any if userID is empty. The
// error is [refusal.PasskeyCloned] if the signature counter says that there are two of it; then the
// result says which passkey it is.
func (p *Passkeys) Verify(
	ctx context.Context, party *Party, use Use, userID string, verify bool, credential []byte,
) (used Used, err error) {
	response, err := protocol.ParseCredentialRequestResponseBytes(credential)
	if err != nil {
		return used, refused(err)
	}
	client := response.Response.CollectedClientData
	if err := p.check(ctx, client.Challenge, party, use); err != nil {
		return used, err
	}
	record, err := p.Records().Record(ctx, Kind, idOf(response.RawID), p.Now())
	if errors.Is(err, store.ErrNotFound) {
		return used, refusal.New(refusal.Passkey, "it is unknown")
	}
	if err == nil {
		used.Passkey, err = read(record)
	}
	if err != nil {
		return used, err
	}
	known := used.Passkey
	if used.Passkey = (Passkey{}); userID != "" && known.UserID != userID || known.Party != party.ID {
		return used, refusal.New(refusal.Passkey, "it belongs to another user or another domain")
	}
	flags := response.Response.AuthenticatorData.Flags
	if verify && !flags.HasUserVerified() {
		return used, &refusal.Error{Reason: refusal.PasskeyUnverified}
	}
	if err := p.verify(ctx, party, userID == "", verify, known, response); err != nil {
		return used, err
	}
	if err := p.take(ctx, client.Challenge); err != nil {
		return used, err
	}
	used.Verified = flags.HasUserVerified()
	used.Passkey, err = p.count(ctx, known, response.Response.AuthenticatorData)
	return used, err
}

// verify checks the signature and all that is signed.
func (p *Passkeys) verify(
	ctx context.Context, party *Party, discovered, verify bool, passkey Passkey,
	response *protocol.ParsedCredentialAssertionData,
) error {
	handle, err := p.handle(ctx, passkey.UserID)
	if err != nil {
		return err
	}
	library, err := party.libraryFor(response.Response.CollectedClientData)
	if err != nil {
		return err
	}
	user := account{handle: handle, credentials: []webauthn.Credential{passkey.credential()}}
	session := webauthn.SessionData{
		Challenge: response.Response.CollectedClientData.Challenge, RelyingPartyID: party.ID,
		UserVerification: verification(verify),
	}
	if discovered { // the authenticator must say whose it is
		_, _, err = library.ValidatePasskeyLogin(
			func(_, _ []byte) (webauthn.User, error) { return user, nil }, session, response,
		)
	} else {
		session.UserID, session.AllowedCredentialIDs = handle, [][]byte{passkey.Credential}
		_, err = library.ValidateLogin(user, session, response)
	}
	return refused(err)
}

// count records a use. A counter that does not grow is that of a copy (WebAuthn §6.1.1); 0 is the
// counter of authenticators that have none, and a copy must not become one of these.
func (p *Passkeys) count(ctx context.Context, passkey Passkey, data protocol.AuthenticatorData) (Passkey, error) {
	changed, err := p.own(ctx, passkey.UserID, passkey.ID, func(kept *Passkey) error {
		if data.Counter <= kept.SignCount && (data.Counter != 0 || kept.SignCount != 0) {
			return refusal.New(
				refusal.PasskeyCloned, "the signature counter is %d, after %d", data.Counter, kept.SignCount,
			)
		}
		kept.SignCount, kept.UsedAt, kept.Flags = data.Counter, p.Now(), byte(data.Flags)
		return nil
	})
	switch {
	case errors.Is(err, refusal.NoSuchRoute):
		return Passkey{}, refusal.New(refusal.Passkey, "it was removed at this moment")
	case errors.Is(err, refusal.PasskeyCloned):
		return passkey, err
	}
	return changed, err
}

// refused returns the refusal for an error of the library. Its further information may quote the
// challenge, so it is not in a log.
func refused(err error) error {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*protocol.Error](err); ok {
		return refusal.New(refusal.Passkey, "%s", refusal.Quoted(failure.Details))
	}
	return refusal.New(refusal.Passkey, "the answer of the browser is not valid")
}

// create stores a new passkey. Of several users with one credential, only one succeeds.
func (p *Passkeys) create(ctx context.Context, made Passkey, userID string) (Passkey, error) {
	text, err := json.Marshal(made)
	if err != nil {
		return made, err
	}
	made.ID, made.UserID = idOf(made.Credential), userID
	err = p.Records().CreateRecord(ctx, store.Record{Kind: Kind, ID: made.ID, Owner: userID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		err = &refusal.Error{Reason: refusal.PasskeyExists}
	}
	return made, err
}

// Usable reports whether a user can log in with one of some passkeys at the party's domain.
func (party *Party) Usable(all []Passkey) bool {
	return slices.ContainsFunc(all, func(k Passkey) bool { return k.Party == party.ID && !k.Suspended })
}
