"""pyjwt.py <issuer> <audience> verifies tokens with PyJWT: one a line.

It prints the claims of each, or the error.
"""
import json
import sys

import jwt

issuer, audience = sys.argv[1:]
keys = jwt.PyJWKClient(issuer + "/.well-known/jwks.json")
for token in sys.stdin.read().split():
    try:
        key = keys.get_signing_key_from_jwt(token).key
        claims = jwt.decode(token, key, algorithms=["RS256"], issuer=issuer, audience=audience)
        print(json.dumps(claims))
    except jwt.PyJWTError as error:
        print(type(error).__name__)
