-- Masks for a segmentation task of GEO-Bench: UperNet over the four grids of a Hiera, which learns with it.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/geobench/cvpr_chesapeake_landcover", help = "task folder of GEO-Bench" },
    weights = { default = "fresh", help = "Hiera weights: a file, or fresh to begin from scratch" },
    model = { default = "hiera-tiny", help = "which Hiera" },
    classes = { default = 0, min = 0, max = 256, help = "of the masks, where the task does not say; 0: it says" },
    normalize = { default = "zscore", values = { "zscore", "model" },
                  help = "by the training split, or as weights that were trained on bytes want it" },
    size = { default = 224, min = 64, max = 1024, help = "side of the images it sees, a multiple of 32" },
    epochs = { default = 50, min = 1, max = 10000, help = "times that all training images are seen" },
    batch = { default = 8, min = 1, max = 1024, help = "images at once" },
    rate = { default = 5e-4, min = 0, max = 1, help = "learning rate" },
    skip_missing = { default = false, help = "leave out samples whose file is missing" },
    seed = { default = 0, min = 0, help = "of everything that is left to chance" },
}

return terrane.train {
    title = "GEO-Bench: masks by UperNet on Hiera",
    data = terrane.dataset { p.data, bands = { "red", "green", "blue" }, resize = p.size, flip = 0.5, rotate = true,
                             skip_missing = p.skip_missing, classes = p.classes > 0 and p.classes or nil },
    encoders = terrane.encoder { p.model, weights = p.weights, img_size = p.size, normalize = p.normalize },
    head = terrane.upernet { channels = 128, dropout = 0.1 },
    loss = terrane.ce_dice {},
    optimizer = terrane.adamw { rate = p.rate, weight_decay = 0.05 },
    schedule = terrane.cosine { warmup_epochs = math.min(2, p.epochs / 10) },
    layer_decay = 0.9,
    epochs = p.epochs,
    batch = p.batch,
    clip = 1,
    seed = p.seed,
}
