// A client of the Model Context Protocol. It knows the URL of the server, and its own document,
// which is its client_id; everything else it finds out.
import { createServer } from 'node:http';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const url = new URL(process.env.SERVER ?? 'http://localhost:8081/mcp');
const document = process.env.DOCUMENT ?? 'https://localhost:8443/client.json';

// The browser comes back to a port that is free now.
let arrived;
const code = new Promise((resolve) => { arrived = resolve; });
const callback = createServer((request, response) => {
  response.end('You can close this window.');
  arrived(new URL(request.url, 'http://localhost').searchParams.get('code'));
});
await new Promise((resolve) => callback.listen(0, 'localhost', resolve));
const redirectUrl = `http://localhost:${callback.address().port}/callback`;

const kept = {};
const provider = {
  redirectUrl,
  clientMetadataUrl: document,
  clientMetadata: { client_name: 'The Assistant', redirect_uris: [redirectUrl] },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  redirectToAuthorization: (page) => console.log(`Open ${page}`),
};

const client = new Client({ name: 'assistant', version: '1.0.0' });
try {
  await client.connect(new StreamableHTTPClientTransport(url, { authProvider: provider }));
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
  await new StreamableHTTPClientTransport(url, { authProvider: provider }).finishAuth(await code);
  await client.connect(new StreamableHTTPClientTransport(url, { authProvider: provider }));
}
const { content } = await client.callTool({ name: 'find', arguments: { title: 'Metropolis' } });
console.log(content[0].text);
await client.close();
callback.close();
callback.closeAllConnections();
