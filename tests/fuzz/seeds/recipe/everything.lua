local terrane = require "terrane"
local p = terrane.params { scene = "in.tif", n = { default = 8, min = 1, max = 9 }, c = { default = "a", values = { "a" } } }
local mine = terrane.sensor { name = "m", unit = "kelvin", bands = { { name = "T", aliases = { "TIR" }, gsd = 1 } } }
return terrane.embed { tile = 64, overlap = 8, title = ("x"):rep(2) .. p.c,
  scene = terrane.scene { p.scene, sensor = mine, scale = 2, unit = "any", nodata = -1 },
  encoders = { terrane.encoder { "rcf", cell = p.n, bands = { "T" }, weight = .5 } }, fusion = terrane.average { l2 = true },
  export = { "a.npy", terrane.geotiff { "b.tif", block = 16 }, terrane.preview "c.png" } }
