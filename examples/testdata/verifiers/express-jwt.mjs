// express-jwt.mjs <issuer> <audience> verifies tokens with express-jwt and jwks-rsa: one a line.
// It prints the claims of each, or the error.
import { createInterface } from 'node:readline';
import { expressjwt } from 'express-jwt';
import jwksRsa from 'jwks-rsa';

const [, , issuer, audience] = process.argv;
const verify = expressjwt({
  secret: jwksRsa.expressJwtSecret({ jwksUri: `${issuer}/.well-known/jwks.json`, cache: true, rateLimit: true }),
  issuer, audience, algorithms: ['RS256'],
});

for await (const token of createInterface({ input: process.stdin })) {
  const request = { method: 'GET', headers: { authorization: `Bearer ${token}` } };
  const error = await new Promise((resolve) => verify(request, {}, resolve));
  console.log(error ? error.message : JSON.stringify(request.auth));
}
