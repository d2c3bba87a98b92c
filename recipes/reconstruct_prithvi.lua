-- A window of Landsat or Sentinel-2, most of it hidden, as Prithvi draws it: how much of the ground it understands.
-- Give several dates by naming their files one after the other, separated by commas.
local terrane = require "terrane"

local p = terrane.params {
    scene = { default = "scene.tif", help = "GeoTIFF with the six HLS bands, or one per date, separated by commas" },
    sensor = { default = "hls", help = "sensor of the scene: hls, hls-s30, hls-l30, sentinel2-l2a, landsat8-sr" },
    model = { default = "prithvi-v2-300m", help = "model of the family prithvi" },
    weights = { default = "store", help = "its published checkpoint, with the decoder; store: what was pulled" },
    mask_ratio = { default = 0.75, min = 0.01, max = 0.99, help = "how much of the window is hidden" },
    seed = { default = 0, min = 0, max = 1000000, help = "another number hides other patches" },
    size = { default = 224, min = 16, max = 1024, help = "side of the window in pixels" },
}

local files = {}
for file in p.scene:gmatch "[^,]+" do
    files[#files + 1] = file
end
local weights = p.weights ~= "store" and p.weights or nil

return terrane.reconstruct {
    title = "Prithvi draws the hidden parts of a window",
    scene = terrane.scene { files, sensor = p.sensor },
    encoder = terrane.encoder { p.model, weights = weights },
    mask_ratio = p.mask_ratio,
    seed = p.seed,
    size = p.size,
    export = "reconstruction.png",
}
