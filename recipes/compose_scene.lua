-- A Sentinel-2 scene through three encoders at once: Hiera sees colours, DOFA bands by their wavelengths, Prithvi the
-- six bands of Landsat and Sentinel-2. One embedding on cells of 16 x 16 pixels. Weights come from the model store
-- (terrane pull NAME), or from files of yours: --set hiera=mine.pth.
local terrane = require "terrane"

local p = terrane.params {
    scene = { default = "data/sentinel2.tif", help = "Sentinel-2 L2A GeoTIFF, reflectance * 10000" },
    hiera = { default = "store", help = "Hiera-B weights: a file, or store for the model store" },
    dofa = { default = "store", help = "DOFA ViT-B weights: a file, or store" },
    prithvi = { default = "store", help = "Prithvi-EO 2.0 100M weights: a file, or store" },
    display = { default = 0.3, min = 0.01, max = 10, help = "reflectance that becomes 255 for encoders of bytes" },
    tile = { default = 224, min = 32, max = 1024, help = "side of a window in pixels, a multiple of 32" },
}

local function weights(path)
    if path ~= "store" then
        return path
    end
end

return terrane.embed {
    title = "Sentinel-2: Hiera, DOFA and Prithvi as one embedding",
    scene = terrane.scene { p.scene, sensor = "sentinel2-l2a", nodata = 0 },
    encoders = {
        terrane.encoder { "hiera-base", weights = weights(p.hiera), display = p.display, remove_position = true },
        terrane.encoder { "dofa-base", weights = weights(p.dofa), display = p.display, remove_position = true,
                          bands = { "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12" } },
        terrane.encoder { "prithvi-v2-100m-tl", weights = weights(p.prithvi), remove_position = true },
    },
    fusion = terrane.concat { cell = 16, l2 = true },
    tile = p.tile,
    overlap = 32,
    export = {
        terrane.geotiff { "embedding.tif", float16 = true },
        terrane.preview "preview.png",
    },
}
