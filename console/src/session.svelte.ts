// The token that the user has signed in with, for as long as the tab is open, and whom it is of.

import type { Who } from './shapes'

const KEY = 'lateen-token'

let token = $state(sessionStorage.getItem(KEY) ?? '')
let who = $state.raw<Who | null>(null)

export const signedIn = () => token !== ''
/** Null until the API has said it. */
export const user = () => who
export const mayEdit = () => token !== '' && who !== null && who.edits

export function signIn(given: string) {
  token = given.trim()
  who = null
  sessionStorage.setItem(KEY, token)
}

export function known(found: Who) {
  who = found
}

export function signOut() {
  token = ''
  who = null
  sessionStorage.removeItem(KEY)
}

export const authorization = (): Record<string, string> => (token ? { Authorization: `Bearer ${token}` } : {})
