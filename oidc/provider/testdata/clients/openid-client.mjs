// openid-client against the provider: argv has the issuer, a client's ID, its
// secret and redirect URI. Each line that is printed is an address for a browser; the
// line that is read then is where the browser was sent back to.
import { createInterface } from 'node:readline'
import assert from 'node:assert'
import * as client from 'openid-client'

const [issuer, id, secret, redirect_uri] = process.argv.slice(2)
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const browse = async (url) => {
  console.log(url.href)
  return new URL((await lines.next()).value)
}
const discover = (id, secret, auth) => client.discovery(new URL(issuer), id, secret, auth, { execute: [client.allowInsecureRequests] })
const pkce = async () => {
  const pkceCodeVerifier = client.randomPKCECodeVerifier()
  return { pkceCodeVerifier, code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256' }
}

// Code flow with PKCE, userinfo, refresh, introspection, revocation, log-out.
const config = await discover(id, secret)
const scope = 'openid email profile offline_access'
const { pkceCodeVerifier, ...challenge } = await pkce()
const state = client.randomState()
const nonce = client.randomNonce()
let back = await browse(client.buildAuthorizationUrl(config, { redirect_uri, scope, state, nonce, ...challenge }))
let tokens = await client.authorizationCodeGrant(config, back, { pkceCodeVerifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true })
const claims = tokens.claims()
const user = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
assert.equal(user.email, 'alice@example.com')
assert.equal(user.name, 'Alice A.')
const old = tokens.refresh_token
tokens = await client.refreshTokenGrant(config, old)
assert.notEqual(tokens.refresh_token, old)
assert.equal(tokens.claims().sub, claims.sub)
assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, true)
await client.tokenRevocation(config, tokens.refresh_token)
assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false)
await assert.rejects(client.refreshTokenGrant(config, tokens.refresh_token), { error: 'invalid_grant' })
await assert.rejects(client.authorizationCodeGrant(config, back, { pkceCodeVerifier, expectedState: state, expectedNonce: nonce }), { error: 'invalid_grant' })

// A pushed request, by client_secret_basic.
const basic = await discover(id, undefined, client.ClientSecretBasic(secret))
const second = await pkce()
back = await browse(await client.buildAuthorizationUrlWithPAR(basic, { redirect_uri, scope: 'openid', state, code_challenge: second.code_challenge, code_challenge_method: 'S256' }))
tokens = await client.authorizationCodeGrant(basic, back, { pkceCodeVerifier: second.pkceCodeVerifier, expectedState: state, idTokenExpected: true })
const hint = tokens.id_token

// The client itself.
const own = await client.clientCredentialsGrant(config, { scope: 'read:todos' })
assert.equal(own.scope, 'read:todos')

// A device.
const tv = await discover('tv', undefined, client.None())
const device = await client.initiateDeviceAuthorization(tv, { scope: 'openid email' })
device.interval = 1 // as fast as it may be, for a test
const [, polled] = await Promise.all([browse(new URL(device.verification_uri_complete)), client.pollDeviceAuthorizationGrant(tv, device)])
assert.equal(polled.claims().aud, 'tv')

// Implicit and hybrid, by the client that is registered for them.
const implicit = await discover('web', secret)
client.useIdTokenResponseType(implicit)
back = await browse(client.buildAuthorizationUrl(implicit, { redirect_uri, scope: 'openid email', nonce, state }))
assert.equal((await client.implicitAuthentication(implicit, back, nonce, { expectedState: state })).email, 'alice@example.com')
const hybrid = await discover('web', secret)
client.useCodeIdTokenResponseType(hybrid)
const third = await pkce()
back = await browse(client.buildAuthorizationUrl(hybrid, { redirect_uri, scope: 'openid', nonce, state, code_challenge: third.code_challenge, code_challenge_method: 'S256' }))
tokens = await client.authorizationCodeGrant(hybrid, back, { pkceCodeVerifier: third.pkceCodeVerifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true })
assert.equal(tokens.claims().sub, claims.sub)

// Log-out.
back = await browse(client.buildEndSessionUrl(config, { id_token_hint: hint, post_logout_redirect_uri: 'https://app.example/', state: 'bye' }))
assert.equal(back.href, 'https://app.example/?state=bye')
console.log('done')
process.exit(0)
