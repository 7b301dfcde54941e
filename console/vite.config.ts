import { readFileSync } from 'node:fs'

import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

/** Answers the page from fixtures/, so that `npm run dev` needs no mesh. */
function fixtures(): Plugin {
  const read = (name: string) => readFileSync(new URL(`fixtures/${name}.json`, import.meta.url), 'utf8')
  return {
    name: 'fixtures',
    configureServer(server) {
      server.middlewares.use('/kiali/api', (request, response) => {
        const path = (request.url ?? '').split('?')[0]!
        if (path.endsWith('/stream')) {
          response.setHeader('Content-Type', 'text/event-stream')
          const send = () => response.write(`data: ${JSON.stringify(JSON.parse(read('graph')))}\n\n`)
          send()
          const timer = setInterval(send, 1000)
          request.on('close', () => clearInterval(timer))
        } else if (path.endsWith('/log')) {
          response.setHeader('Content-Type', 'text/event-stream')
          response.write('data: "[2026-01-01T00:00:00Z] GET /ratings/0 200"\n\n')
        } else {
          response.setHeader('Content-Type', 'application/json')
          response.end(read(path.split('/').pop()!))
        }
      })
    },
  }
}

// The page is served below /kiali and shipped inside the Python package. With LATEEN_CONSOLE=http://localhost:20001
// (lateen dashboard kiali), `npm run dev` asks a real console.
const real = process.env.LATEEN_CONSOLE
export default defineConfig({
  base: '/kiali/',
  plugins: [svelte(), ...(real ? [] : [fixtures()])],
  server: real ? { proxy: { '/kiali/api': { target: real, changeOrigin: true } } } : {},
  build: { outDir: '../src/lateen/console/static', emptyOutDir: true, chunkSizeWarningLimit: 700 },
})
