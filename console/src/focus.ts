// Where the keyboard is.

import type { Attachment } from 'svelte/attachments'

/** What opens beside a page: it takes the focus from what opened it, which gets it back at the end; Escape closes it. */
export function aside(close: () => void): Attachment<HTMLElement> {
  return (node) => {
    const opener = document.activeElement
    const escape = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return
      event.preventDefault()
      close()
    }
    node.addEventListener('keydown', escape)
    // With the pointer nothing has the focus, and nothing needs it.
    if (opener !== document.body) node.querySelector<HTMLElement>('[data-first]')?.focus()
    return () => {
      node.removeEventListener('keydown', escape)
      const lost = document.activeElement === document.body || node.contains(document.activeElement)
      if (!lost || !(opener instanceof HTMLElement)) return
      if (opener.isConnected) opener.focus()
      else document.querySelector('main')?.focus()
    }
  }
}
