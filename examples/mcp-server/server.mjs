// A server of the Model Context Protocol with one tool. It runs behind Caddy, which has checked
// the token, and knows its user by a header.
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { z } from 'zod';

const port = process.env.PORT ?? '8082';

createServer(async (request, response) => {
  const server = new McpServer({ name: 'films', version: '1.0.0' });
  server.registerTool(
    'find', { description: 'Find a film', inputSchema: { title: z.string() } },
    ({ title }) => ({ content: [{ type: 'text', text: `${title}, for ${request.headers['x-user-id']}` }] }),
  );
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response);
}).listen(Number(port), 'localhost');
