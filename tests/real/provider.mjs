// The certified OpenID provider, on any free port. The first line of stdin is its settings; it
// prints {"issuer"} when it listens, then answers each further line, a command, with one line.
// In between it prints {"kind", "secret"} for every secret, before whoever gets it does. It ends
// when stdin does.
//
//   settings: {"host"}                 where it listens, and what its issuer's name is
//             {"key", "certificate"}   PEM, for TLS
//             {"clients"}              as of RFC 7591
//             {"groups"}               whose member everybody is
//             {"resource"}             what access tokens that are JWTs may be for (RFC 8707)
//             {"steady"}               clients whose refresh tokens do not rotate
//   {"do": "lifetime", "account", "seconds"}   how long this account's tokens live from now on
//   {"do": "forget", "account"}                its grants are revoked, as an administrator would
//   {"do": "report"}                           {"requests"}, all that were answered

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';

console.info = console.warn = () => {}; // its advice for production
const { Provider, errors } = await import('oidc-provider');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
const seconds = new Map(); // by account
const grants = [];
const requests = [];
const owners = new Map(); // whose each code and token is
const secret = ['code', 'state', 'nonce', 'code_verifier', 'device_code', 'id_token', 'access_token', 'refresh_token'];

const lifetime = (account) => seconds.get(account) ?? 3600;
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const configuration = {
  clients: settings.clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID() }] },
  cookies: { keys: [randomUUID()] },
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] },
  conformIdTokenClaims: false, // claims of scopes in the ID token, as most providers have it
  findAccount: (_, account) => ({
    accountId: account,
    claims: () => ({ sub: account, name: account, email: `${account}@example.com`, email_verified: true, groups: settings.groups }),
  }),
  rotateRefreshToken: ({ oidc }) => !settings.steady.includes(oidc.client.clientId),
  extraTokenClaims: (_, token) => ({ groups: token.accountId ? settings.groups : undefined }),
  ttl: {
    IdToken: ({ oidc }) => lifetime(oidc.entities.Account?.accountId),
    AccessToken: (_, token) => lifetime(token.accountId),
    ClientCredentials: 3600,
    RefreshToken: 86_400,
    Grant: 86_400,
    Session: 86_400,
    Interaction: 3600,
    DeviceCode: 600,
  },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== settings.resource) throw new errors.InvalidTarget();
        return { scope: 'read', audience: resource, accessTokenFormat: 'jwt' };
      },
    },
  },
};

const server = createServer({ key: settings.key, cert: settings.certificate });
await new Promise((resolve) => server.listen(0, settings.host, resolve));
const issuer = `https://${settings.host}:${server.address().port}`;
const provider = new Provider(issuer, configuration);
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.saved', (grant) => grants.push(grant));
provider.on('authorization.success', ({ oidc }, answer) => tell(answer, oidc.account?.accountId));
provider.use(async (ctx, next) => {
  await next();
  if (ctx.oidc) note(ctx);
});
server.on('request', provider.callback());

function tell(parameters, owner) {
  for (const kind of secret.filter((kind) => parameters?.[kind])) {
    console.log(JSON.stringify({ kind, secret: parameters[kind] }));
    if (owner) owners.set(parameters[kind], owner);
  }
}

function note({ oidc, body, status }) {
  const { route, params = {}, client, account } = oidc;
  if (!['authorization', 'token', 'revocation', 'device_authorization'].includes(route)) return;
  const known = owners.get(params.refresh_token ?? params.code ?? params.token);
  const who = account?.accountId ?? known ?? params.login_hint;
  tell(params);
  tell(body, who);
  requests.push({ route, client: client?.clientId, account: who, grant: params.grant_type, status, error: body?.error });
}

const commands = {
  lifetime: ({ account, seconds: span }) => { seconds.set(account, span); },
  forget: async ({ account }) => {
    for (const grant of grants.filter((grant) => grant.accountId === account)) await grant.destroy();
  },
  report: () => ({ requests }),
};

console.log(JSON.stringify({ issuer }));
for await (const line of lines) {
  const command = JSON.parse(line);
  console.log(JSON.stringify(await commands[command.do](command) ?? {}));
}
process.exit();
