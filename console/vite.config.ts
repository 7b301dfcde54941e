import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The page is served below /kiali and shipped inside the Python package.
export default defineConfig({
  base: '/kiali/',
  plugins: [svelte()],
  build: { outDir: '../src/lateen/console/static', emptyOutDir: true, chunkSizeWarningLimit: 700 },
})
