// Routes by prefix, does not resolve dot segments, and says what ran.
import express from 'express';

const app = express();
app.use('/graphql', (_, response) => response.send('ran graphql'));
app.all('/admin/delete-all{/*rest}', (_, response) => response.send('ran delete-all'));
app.use('/whatwg', (request, response, next) => next());
app.use((request, response) => response.send('other ' + new URL(request.url, 'http://localhost').pathname));
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
