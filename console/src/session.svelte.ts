// The token that the user has signed in with, for as long as the tab is open, and whom it is of.

import { says } from './polled.svelte'
import type { Who } from './shapes'

const KEY = 'lateen-token'

let token = $state(sessionStorage.getItem(KEY) ?? '')
let who = $state.raw<Who | null>(null)
let why = $state('')

export const signedIn = () => token !== ''
/** Null until the API has said it. */
export const user = () => who
export const mayEdit = () => token !== '' && who !== null && who.edits

/** Why somebody who was signed in is not any more. */
export const reason = () => why

/** Why something failed; nothing where that is because the session has ended, which the form for the next one says. */
export const failed = (e: unknown) => (token ? says(e) : '')

export function signIn(given: string) {
  token = given.trim()
  who = null
  why = ''
  sessionStorage.setItem(KEY, token)
}

export function known(found: Who) {
  who = found
}

/** The API does not take the token, or not any more. */
export function ended(says: string) {
  signOut()
  why = says
}

export function signOut() {
  token = ''
  who = null
  why = ''
  sessionStorage.removeItem(KEY)
}

export const authorization = (): Record<string, string> => (token ? { Authorization: `Bearer ${token}` } : {})
