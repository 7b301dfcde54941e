// The token that the user has signed in with, for as long as the tab is open.

const KEY = 'lateen-token'

let token = $state(sessionStorage.getItem(KEY) ?? '')

export const signedIn = () => token !== ''

export function signIn(given: string) {
  token = given.trim()
  sessionStorage.setItem(KEY, token)
}

export function signOut() {
  token = ''
  sessionStorage.removeItem(KEY)
}

export const authorization = (): Record<string, string> => (token ? { Authorization: `Bearer ${token}` } : {})
