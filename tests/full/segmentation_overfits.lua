-- A small Hiera with UperNet, from scratch, on chips that are all of its data: nothing is left to chance and nothing
-- holds it back, so that it must come to know them by heart. Run by segmentation_overfits.sh.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/geobench/cvpr_chesapeake_landcover", help = "task folder of GEO-Bench" },
    classes = { default = 0, min = 0, max = 256, help = "of the masks; 0: the task says" },
    size = { default = 384, min = 64, max = 512, help = "side of the chips it sees, a multiple of 32" },
    dim = { default = 8, min = 8, max = 96, help = "channels of the first stage" },
    channels = { default = 24, min = 8, max = 512, help = "of UperNet" },
    epochs = { default = 400, min = 1, max = 10000, help = "times that the list of chips is seen" },
    batch = { default = 3, min = 1, max = 64, help = "chips at once" },
    rate = { default = 4e-3, min = 0, max = 1, help = "learning rate" },
}

return terrane.train {
    title = "UperNet on a small Hiera learns a few chips by heart",
    data = terrane.dataset { p.data, bands = { "red", "green", "blue" }, resize = p.size,
                             classes = p.classes > 0 and p.classes or nil },
    encoders = terrane.encoder { "hiera-tiny", weights = "fresh", img_size = p.size, dim = p.dim, stages = "1,1,2,1",
                                 normalize = "zscore" },
    head = terrane.upernet { channels = p.channels },
    loss = terrane.ce_dice {},
    optimizer = terrane.adamw { rate = p.rate, weight_decay = 0 },
    schedule = terrane.cosine { warmup_epochs = 10 },
    epochs = p.epochs,
    batch = p.batch,
    clip = 1,
}
