// oidc-provider as an identity provider for login_with: argv has the port, the
// client's ID, its secret and redirect URI. Its own log-in pages take any name.
import { Provider } from 'oidc-provider'

const [port, client_id, client_secret, redirect_uri] = process.argv.slice(2)
const issuer = `http://localhost:${port}`
const provider = new Provider(issuer, {
  clients: [{ client_id, client_secret, redirect_uris: [redirect_uri], grant_types: ['authorization_code'], response_types: ['code'] }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: 'Somebody' }) }),
  cookies: { keys: ['a key for the cookies of a test'] },
})
provider.listen(Number(port), 'localhost', () => console.log('ready'))
