// Light or dark: as the system says until the user chooses. The page's root element carries the one in force.

const KEY = 'lateen-theme'
const system = matchMedia('(prefers-color-scheme: dark)')

export type Choice = 'system' | 'light' | 'dark'
const stored = localStorage.getItem(KEY)
let choice = $state<Choice>(stored === 'light' || stored === 'dark' ? stored : 'system')
let systemDark = $state(system.matches)
system.addEventListener('change', (e) => {
  systemDark = e.matches
  show()
})

export const chosen = () => choice
export const dark = () => (choice === 'system' ? systemDark : choice === 'dark')

export function choose(next: Choice) {
  choice = next
  localStorage.setItem(KEY, next)
  show()
}

function show() {
  document.documentElement.dataset.theme = dark() ? 'dark' : 'light'
}
show()
