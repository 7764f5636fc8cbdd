// oidc-client-ts as its manual has it: code flow with PKCE, silent renewal in a
// frame, log-out.
const here = location.origin + '/'
const issuer = new URLSearchParams(location.search).get('issuer') || sessionStorage.getItem('issuer')
if (issuer) sessionStorage.setItem('issuer', issuer)
const manager = new oidc.UserManager({
  authority: issuer || localStorage.getItem('issuer'), client_id: 'browser', redirect_uri: here + 'callback', silent_redirect_uri: here + 'silent', post_logout_redirect_uri: here + 'bye',
  scope: 'openid email', automaticSilentRenew: false, loadUserInfo: true,
})
if (issuer) localStorage.setItem('issuer', issuer)
const out = document.getElementById('out')
const show = (promise) => promise.then((text) => { out.textContent = text }, (error) => { out.textContent = 'error: ' + error.message })

const describe = (user) => (user ? 'user ' + user.profile.email : 'nobody')
if (location.pathname === '/callback') {
  show(manager.signinCallback().then(describe))
} else if (location.pathname === '/silent') {
  manager.signinSilentCallback()
} else if (location.pathname === '/bye') {
  show(manager.signoutCallback().then(() => 'bye'))
} else {
  show(manager.getUser().then(describe))
}
document.getElementById('login').onclick = () => manager.signinRedirect()
document.getElementById('renew').onclick = () => show(manager.signinSilent().then((user) => 'renewed ' + user.profile.email))
document.getElementById('logout').onclick = () => manager.signoutRedirect()
