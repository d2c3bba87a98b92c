-- A window of a scene, most of it hidden, as a masked autoencoder draws it again: how much it knows of the ground.
-- Prithvi draws several dates: name their files one after the other, separated by commas. Hiera draws one image.
local terrane = require "terrane"

local p = terrane.params {
    scene = { default = "scene.tif", help = "GeoTIFF with the encoder's bands, or one per date, separated by commas" },
    sensor = { default = "hls", help = "of the scene: hls, hls-s30, hls-l30, sentinel2-l2a, landsat8-sr, rgb" },
    encoder = { default = "prithvi-v2-300m", help = "with a decoder: prithvi-* or mae-hiera-*" },
    weights = { default = "store", help = "its published checkpoint, with the decoder; store: what was pulled" },
    display = { default = 0.0, min = 0.0, max = 100.0,
                help = "mae-hiera-* over a scene of reflectance: the reflectance that becomes 255, such as 0.3" },
    mask_ratio = { default = 0.75, min = 0.01, max = 0.99, help = "how much of the window is hidden" },
    seed = { default = 0, min = 0, max = 1000000, help = "another number hides other patches" },
    size = { default = 224, min = 16, max = 1024, help = "side of the window in pixels" },
}

local files = {}
for file in p.scene:gmatch "[^,]+" do
    files[#files + 1] = file
end
local weights = p.weights ~= "store" and p.weights or nil
local display = p.display > 0 and p.display or nil

return terrane.reconstruct {
    title = "A masked autoencoder draws the hidden parts of a window",
    scene = terrane.scene { files, sensor = p.sensor },
    encoder = terrane.encoder { p.encoder, weights = weights, display = display },
    mask_ratio = p.mask_ratio,
    seed = p.seed,
    size = p.size,
    export = "reconstruction.png",
}
