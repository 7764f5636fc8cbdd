// oidc-provider, in memory and with its defaults, as `bench provider` measures it: argv has the port, the
// client's secret and redirect URI. A line "<count>" on stdin makes so many codes, which it prints.
import { createInterface } from 'node:readline'
import { Provider } from 'oidc-provider'

const [port, secret, redirectURI] = process.argv.slice(2)
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'app', client_secret: secret, redirect_uris: [redirectURI],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
  }],
  features: { clientCredentials: { enabled: true } },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  pkce: { required: () => false },
  cookies: { keys: ['a key for the cookies of a measurement'] },
})

const makeCode = async (client) => {
  const grant = new provider.Grant({ accountId: 'alice', clientId: 'app' })
  grant.addOIDCScope('openid offline_access')
  return new provider.AuthorizationCode({
    accountId: 'alice', client, grantId: await grant.save(), gty: 'authorization_code', redirectUri: redirectURI,
    scope: 'openid offline_access', authTime: Math.floor(Date.now() / 1000),
  }).save()
}

provider.listen(Number(port), '127.0.0.1', () => console.log('ready'))
for await (const line of createInterface({ input: process.stdin })) {
  const client = await provider.Client.find('app')
  const codes = []
  for (let i = 0; i < Number(line); i++) codes.push(await makeCode(client))
  console.log('codes ' + codes.join(' ')) // the library prints other lines
}
