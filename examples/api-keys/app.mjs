// A LoopBack app that shows its user. It runs behind Caddy, which has checked the API key.
import { AuthenticationComponent, authenticate, registerAuthenticationStrategy } from '@loopback/authentication';
import { inject } from '@loopback/core';
import { get, RestApplication, RestBindings } from '@loopback/rest';
import { SecurityBindings } from '@loopback/security';
import { TokenStrategy } from './strategy.mjs';

class UserController {
  constructor(user, request) {
    this.user = user;
    this.request = request;
  }

  whoAmI() {
    const { sub, scope, roles } = this.user;
    return { sub, scope, roles, headers: this.request.headers };
  }
}

// In TypeScript, these are decorators, as in @authenticate('jwt').
authenticate('jwt')(UserController);
inject(SecurityBindings.USER)(UserController, undefined, 0);
inject(RestBindings.Http.REQUEST)(UserController, undefined, 1);
get('/whoAmI')(UserController.prototype, 'whoAmI', Object.getOwnPropertyDescriptor(UserController.prototype, 'whoAmI'));

const app = new RestApplication({ rest: { host: 'localhost', port: Number(process.env.PORT ?? '8081') } });
app.component(AuthenticationComponent);
registerAuthenticationStrategy(app, TokenStrategy);
app.controller(UserController);
await app.start();
