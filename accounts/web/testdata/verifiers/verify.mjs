// verify.mjs <library> <issuer> <audience> <secret> verifies the tokens on stdin, one a line, as the README
// of the library does. It prints the user of each, or the error.
import { createInterface } from 'node:readline';
import { expressjwt } from 'express-jwt';
import bearer from 'express-oauth2-jwt-bearer';
import jwksRsa from 'jwks-rsa';
import passportJWT from 'passport-jwt';
import { JWTService } from '@loopback/authentication-jwt';

const [, , library, issuer, audience, secret] = process.argv;
const jwksUri = `${issuer}/.well-known/jwks.json`;

const middleware = (verify) => (token) => new Promise((resolve, reject) => {
  const request = {
    method: 'GET', url: '/', originalUrl: '/', protocol: 'http', hostname: 'localhost', query: {}, body: {},
    headers: { host: 'localhost', authorization: `Bearer ${token}` }, is: () => false, get: () => 'localhost',
  };
  verify(request, {}, (error) => error ? reject(error) : resolve(request.auth.payload ?? request.auth));
});

const libraries = {
  'express-jwt': () => middleware(expressjwt({
    secret: jwksRsa.expressJwtSecret({ jwksUri, cache: true, rateLimit: true }),
    issuer, audience, algorithms: ['RS256'],
  })),
  'express-oauth2-jwt-bearer': () => middleware(bearer.auth({ issuerBaseURL: issuer, audience })),
  'express-oauth2-jwt-bearer strict': () => middleware(bearer.auth({ issuerBaseURL: issuer, audience, strict: true })),
  'passport-jwt': () => {
    const strategy = new passportJWT.Strategy({
      secretOrKeyProvider: jwksRsa.passportJwtSecret({ jwksUri, cache: true, rateLimit: true }),
      jwtFromRequest: passportJWT.ExtractJwt.fromAuthHeaderAsBearerToken(),
      issuer, audience, algorithms: ['RS256'],
    }, (payload, done) => done(null, payload));
    return (token) => new Promise((resolve, reject) => {
      const each = Object.create(strategy);
      Object.assign(each, { success: resolve, fail: (error) => reject(error ?? new Error('failed')), error: reject });
      each.authenticate({ headers: { authorization: `Bearer ${token}` } });
    });
  },
  'LoopBack': () => {
    const service = new JWTService(secret, '3600');
    return async (token) => {
      const profile = await service.verifyToken(token);
      return { sub: profile.id, name: profile.name };
    };
  },
};

const verify = libraries[library]();
for await (const token of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await verify(token).then(
    ({ sub, name }) => ({ sub, name }), (error) => ({ error: error.message }),
  )));
}
