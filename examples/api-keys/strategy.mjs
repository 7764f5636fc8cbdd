// Verifies the tokens of an issuer, with the keys that it publishes.
import { HttpErrors } from '@loopback/rest';
import { securityId } from '@loopback/security';
import jwt from 'jsonwebtoken';
import jwksRsa from 'jwks-rsa';

const issuer = process.env.ISSUER ?? 'http://localhost:8080/jwt';
const audience = 'https://films.internal';

const keys = jwksRsa({ jwksUri: `${issuer}/.well-known/jwks.json`, cache: true, cacheMaxAge: 600000 });

function keyOf(header, done) {
  keys.getSigningKey(header.kid, (error, key) => done(error, key?.getPublicKey()));
}

function tokenOf(request) {
  const header = request.headers.authorization;
  if (!header) throw new HttpErrors.Unauthorized('Authorization header is missing');
  const [scheme, token, ...more] = header.split(' ');
  if (scheme !== 'Bearer') throw new HttpErrors.Unauthorized('Authorization header is not of type Bearer');
  if (!token || more.length) throw new HttpErrors.Unauthorized('Authorization header must be: Bearer <token>');
  return token;
}

export class TokenStrategy {
  name = 'jwt';

  async authenticate(request) {
    const token = tokenOf(request);
    return new Promise((resolve, reject) => {
      jwt.verify(token, keyOf, { issuer, audience, algorithms: ['RS256'] }, (error, claims) => {
        if (error) reject(new HttpErrors.Unauthorized(error.message));
        else resolve({ ...claims, [securityId]: claims.sub });
      });
    });
  }
}
