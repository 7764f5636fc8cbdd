// oauth4webapi against the provider, with each check of the specifications by
// hand: a client that authenticates by private_key_jwt, and a public one.
// argv has the issuer and the redirect URI, KEY the private key as a JWK.
import { createInterface } from 'node:readline'
import assert from 'node:assert'
import * as oauth from 'oauth4webapi'

const [address, redirect_uri] = process.argv.slice(2)
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const browse = async (url) => {
  console.log(url.href)
  return new URL((await lines.next()).value)
}
const plain = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(address)
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, plain))
const byOAuth = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...plain, algorithm: 'oauth2' }))
assert.deepEqual(as, byOAuth)

async function logIn(client, auth, redirect) {
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const nonce = oauth.generateRandomNonce()
  const url = new URL(as.authorization_endpoint)
  for (const [name, value] of Object.entries({
    client_id: client.client_id, redirect_uri: redirect, response_type: 'code', scope: 'openid email', state, nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  })) url.searchParams.set(name, value)
  const parameters = oauth.validateAuthResponse(as, client, await browse(url), state) // checks iss, RFC 9207
  const response = await oauth.authorizationCodeGrantRequest(as, client, auth, parameters, redirect, verifier, plain)
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce: nonce, requireIdToken: true })
  await oauth.validateApplicationLevelSignature(as, response, plain)
  const { sub } = oauth.getValidatedIdTokenClaims(tokens)
  const user = await oauth.processUserInfoResponse(as, client, sub, await oauth.userInfoRequest(as, client, tokens.access_token, plain))
  assert.equal(user.email, 'alice@example.com')
  // The access token is one by RFC 9068.
  const request = new Request('https://api.example/', { headers: { authorization: `Bearer ${tokens.access_token}` } })
  const access = await oauth.validateJwtAccessToken(as, request, address, plain)
  assert.equal(access.client_id, client.client_id)
  return tokens
}

const jwk = JSON.parse(process.env.KEY)
const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
await logIn({ client_id: 'keyed' }, oauth.PrivateKeyJwt({ key, kid: jwk.kid }), redirect_uri)
await logIn({ client_id: 'spa' }, oauth.None(), 'https://spa.example:4711/callback')
const other = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
await assert.rejects(logIn({ client_id: 'keyed' }, oauth.PrivateKeyJwt(other.privateKey), redirect_uri), { error: 'invalid_client' })
console.log('done')
process.exit(0)
