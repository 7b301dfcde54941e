import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The page is served below /kiali and shipped inside the Python package. `npm run dev` asks the console at
// LATEEN_CONSOLE: that of `lateen dashboard kiali`, or of `python tools/stage.py`, which needs no mesh.
const target = process.env.LATEEN_CONSOLE ?? 'http://localhost:20001'
export default defineConfig({
  base: '/kiali/',
  plugins: [svelte()],
  server: { proxy: { '/kiali/api': { target, changeOrigin: true } } },
  build: { outDir: '../src/lateen/console/static', emptyOutDir: true, chunkSizeWarningLimit: 800 },
})
