-- schema: every constructor of recipes and its fields, described once. The checks of check.lua, the tables of
-- docs/recipes.md and the stubs of lua/meta/terrane.lua all come from here.
--
-- A field: name; type (one name or a list of alternatives: string, integer, number, boolean, choice, paths (a text or a
-- list of texts), or the name of a constructor); help; required; default, or otherwise (in words: what
-- happens without it); min, max, above (exclusive), multiple;
-- values { {value, help} } of a choice; what (what a string is); list (a list of such values, at most max_items);
-- count (the list must have just so many); single (one value may stand without braces); record (a plain table with
-- these fields, or, in a list, many of them).

local units = {
    { "any", "digital numbers of no known unit" },
    { "reflectance", "0 to 1" },
    { "decibel", "radar backscatter in dB" },
    { "byte", "display values, 0 to 255" },
    { "kelvin", "brightness temperature" },
}

local function append(fields, more)
    for _, field in ipairs(more) do
        fields[#fields + 1] = field
    end
    return fields
end

-- What stored values mean: of scenes, images and datasets.
local sensor_field = { name = "sensor", type = { "string", "sensor" }, what = "a sensor's name",
                       help = "which sensor took it: names the bands, the unit and the scale" }
local scale_field = { name = "scale", type = "number", otherwise = "the sensor's",
                      help = "physical value = stored value * scale + offset; wins over the sensor's" }
local offset_field = { name = "offset", type = "number", help = "see scale",
                       otherwise = "the sensor's; 0 beside scale" }
local unit_field = { name = "unit", type = "choice", values = units, help = "unit of the physical values",
                     otherwise = "the sensor's" }

-- What scene and images share.
local function with_values(fields)
    return append(fields, {
        sensor_field,
        { name = "bands", type = "string", what = "a band name", list = true, max_items = 512,
          help = "names of the bands in file order, where the file does not tell" },
        scale_field, offset_field, unit_field,
        { name = "nodata", type = "number", help = "stored value that means: no data here",
          otherwise = "from the file" },
        { name = "location", type = "number", list = true, max_items = 2, count = 2, min = -360, max = 360,
          help = "latitude and longitude in degrees, for encoders that look at the place",
          otherwise = "by the georeference" },
    })
end

local fusion_fields = {
    { name = "cell", type = "integer", min = 1, max = 4096, help = "pixels per cell of the common grid",
      otherwise = "the finest grid of the encoders" },
    { name = "l2", type = "boolean", default = false, help = "bring each encoder's vector to length 1 first" },
}

local float16 = { name = "float16", type = "boolean", default = false, help = "store half precision" }

local band_fields = {
    { name = "name", type = "string", what = "a band name", required = true, help = "the sensor's own name: B04" },
    { name = "common", type = "string", what = "a common band name", otherwise = "the name",
      help = "common name by which encoders ask: red, nir, swir16, vv" },
    { name = "wavelength", type = "number", min = 0, max = 1e6, help = "centre in micrometres", otherwise = "none" },
    { name = "gsd", type = "number", min = 0, max = 1e6, help = "ground sampling distance in metres",
      otherwise = "unknown" },
    { name = "aliases", type = "string", what = "a band name", list = true, max_items = 6, help = "other spellings" },
}

local title_field = { name = "title", type = "string", what = "text", help = "one line for --help",
                      otherwise = "the recipe's name" }
local strict_field = { name = "strict", type = "boolean", default = false,
                       help = "warnings about the input stop the run" }
local seed_field = { name = "seed", type = "integer", min = 0, max = 2147483647, default = 0,
                     help = "of everything that is left to chance: the same seed gives the same bits" }

-- ---- learning ----

local function probability(name, help)
    return { name = name, type = "number", min = 0, max = 1, default = 0, help = help }
end

local function count_of(split)
    return { name = split, type = "integer", min = 1, max = 2147483647, help = "samples of this split",
             otherwise = "all" }
end

local function share_of(split)
    return { name = split, type = "number", min = 0, max = 0.99, default = 0.2, help = "of this split; 0: it has none" }
end

local function head_fields(fields)
    return append(fields, {
        { name = "dropout", type = "number", min = 0, max = 0.99, default = 0, help = "before the last layer" },
    })
end

local batch_norm_field = { name = "batch_norm", type = "boolean", default = false,
                           help = "features of whole images pass a batch norm without weights first" }
local channels_field = { name = "channels", type = "integer", min = 1, max = 65536, help = "of its layers",
                         otherwise = "256" }

local function optimizer_fields(rate, decay, fields)
    return append({
        { name = "rate", type = "number", above = 0, max = 1000, default = rate, help = "learning rate" },
        { name = "weight_decay", type = "number", min = 0, max = 1000, default = decay,
          help = "of matrices and kernels; biases, norms, positions and tokens have none" },
        { name = "coupled_decay", type = "boolean", default = false,
          help = "weight decay is part of the gradient" },
    }, fields)
end

local function schedule_fields(fields)
    return append({
        { name = "warmup_epochs", type = "number", min = 0, max = 1e6, default = 0,
          help = "epochs in which the rate grows in a straight line" },
        { name = "start", type = "number", min = 0, max = 1000, default = 0,
          help = "rate at the beginning of warm-up" },
    }, fields)
end

local last_rate = { name = "last", type = "number", min = 0, max = 1000, default = 0,
                    help = "rate that it does not fall below" }
local weights_of_classes = { name = "class_weights", type = "number", list = true, max_items = 65536, min = 0,
                             max = 1e6, help = "a weight for each class", otherwise = "all 1" }
local balance_field = { name = "balance", type = "boolean", default = false,
                        help = "class weights from how often classes occur in training: total / (classes * count)" }

local function probe_name(default)
    return { name = "name", type = "string", what = "a name", help = "of its figure in result.json",
             otherwise = default }
end

-- What jobs that learn from a dataset share.
local function learning_job(encoders, fields)
    return append({
        title_field,
        { name = "data", type = "dataset", required = true, help = "what is learned from" },
        { name = "encoders", type = "encoder", list = true, single = true, max_items = 16,
          help = encoders.help, required = encoders.required, otherwise = encoders.otherwise },
        { name = "fusion", type = "fusion", help = "terrane.concat or terrane.average",
          otherwise = "terrane.concat {}" },
    }, append(fields, { seed_field, strict_field }))
end

return {
    {
        name = "params", kind = "params",
        help = "Declares what `--set KEY=VALUE` may change. Each key gives a parameter; its type is that of its "
            .. "default. A bare value is short for { default = value }. Reading an undeclared one is an error.",
        record_name = "param",
        each = {
            { name = "default", type = { "string", "integer", "number", "boolean" }, required = true,
              help = "the value without --set; it decides the type" },
            { name = "help", type = "string", what = "text", help = "one line for --help" },
            { name = "min", type = "number", help = "smallest number allowed" },
            { name = "max", type = "number", help = "largest number allowed" },
            { name = "values", type = "string", what = "text", list = true, max_items = 64,
              help = "the texts allowed" },
        },
    },
    {
        name = "scene", kind = "scene",
        help = "One scene: a GeoTIFF, or several files that belong together (one per band, say). A file whose bands "
            .. "are there already begins the next date of a series; or `dates` says which files are of which date.",
        fields = with_values {
            { name = "path", positional = true, type = "string", what = "a path", list = true,
              max_items = 4096, help = "file or files", otherwise = "dates" },
            { name = "dates", type = "paths", list = true, max_items = 366,
              help = "the files of each date of a series, in place of the first values", otherwise = "by the bands" },
            { name = "acquired", type = "string", what = "a date (2018-06-02)", list = true, single = true,
              max_items = 366, help = "when each date was taken",
              otherwise = "the date in the files' names, or their DateTime tag" },
        },
    },
    {
        name = "images", kind = "images",
        help = "Many images, each of which gives one vector: a folder, or files.",
        fields = with_values {
            { name = "path", positional = true, type = "string", what = "a path", required = true, list = true,
              max_items = 65536, help = "folder, or files" },
            { name = "resize", type = "integer", min = 1, max = 4096,
              help = "side in pixels to which every image is brought (bilinear)",
              otherwise = "images stay as they are" },
        },
    },
    {
        name = "sensor", kind = "sensor",
        help = "A sensor of your own, to be used as `sensor` of a scene.",
        fields = {
            { name = "name", type = "string", what = "a name", required = true, help = "short name" },
            { name = "title", type = "string", what = "text", help = "full name", otherwise = "the name" },
            { name = "unit", type = "choice", values = units, default = "any",
              help = "unit of stored value * scale + offset" },
            { name = "scale", type = "number", default = 1, help = "stored to unit" },
            { name = "offset", type = "number", default = 0, help = "stored to unit" },
            { name = "nodata", type = "number", help = "usual nodata value", otherwise = "none" },
            { name = "bands", type = "record", record = band_fields, record_name = "band", list = true,
              max_items = 512, required = true, help = "the bands in file order" },
        },
    },
    {
        name = "encoder", kind = "encoder",
        help = "One encoder. Every field that is not listed here is a setting of the model itself (for `rcf`: "
            .. "features, cell, patch, seed; for `galileo-nano`: patch, month); a wrong one is answered with all "
            .. "there are.",
        open = true,
        fields = {
            { name = "name", positional = true, type = "string", what = "the name of a model", required = true,
              help = "model as `terrane models` names it" },
            { name = "weights", type = "string", what = "a path", help = "weights file", otherwise = "none" },
            { name = "wrapper", type = "string", what = "a key",
              help = "which weights of a checkpoint that holds several sets, such as teacher",
              otherwise = "recognised" },
            { name = "bands", type = "string", what = "a band name", list = true, max_items = 512,
              help = "scene bands it may use, in any spelling", otherwise = "all" },
            { name = "normalize", type = "choice", default = "model", help = "how values are normalised",
              values = {
                  { "model", "by the statistics the model was trained with" },
                  { "none", "fed as stored" },
                  { "zscore", "by mean and standard deviation of the scene" },
              } },
            { name = "pool", type = "choice", help = "what comes out",
              otherwise = "none for a scene, mean for images and tile_vectors",
              values = {
                  { "none", "a vector per cell" },
                  { "mean", "one vector: the mean of the cells" },
                  { "cls", "one vector: the class token" },
              } },
            { name = "date", type = "integer", min = 1, max = 366,
              help = "which date of a series it sees, from 1", otherwise = "all dates" },
            { name = "display", type = "number", above = 0, max = 100,
              help = "for encoders of display bytes over a scene of reflectance: the reflectance that becomes 255 "
                  .. "(values are held within 0 to 255)" },
            { name = "weight", type = "number", above = 0, max = 1e6, default = 1,
              help = "of its features in the fusion" },
            { name = "remove_position", type = "boolean", default = false,
              help = "dense features less those of a window of the scene's mean colour: takes out where in the "
                  .. "window a cell lies" },
        },
    },
    {
        name = "concat", kind = "fusion",
        help = "Fusion: the vectors of all encoders side by side.",
        fields = fusion_fields,
    },
    {
        name = "average", kind = "fusion",
        help = "Fusion: the weighted mean of vectors of equal length.",
        fields = fusion_fields,
    },
    {
        name = "geotiff", kind = "export",
        help = "A GeoTIFF with one band per channel and the scene's georeference.",
        extensions = { "tif", "tiff" },
        fields = {
            { name = "path", positional = true, type = "string", what = "a file name", required = true,
              help = "name below the output folder, .tif or .tiff" },
            { name = "compression", type = "choice", default = "deflate", help = "of the file's blocks",
              values = {
                  { "none", "largest, fastest" },
                  { "lzw", "read everywhere" },
                  { "deflate", "small" },
                  { "zstd", "small and fast, where libtiff has it" },
              } },
            { name = "block", type = "integer", min = 16, max = 4096, multiple = 16,
              help = "side of the file's blocks in cells", otherwise = "256" },
            float16,
        },
    },
    {
        name = "npy", kind = "export",
        help = "A NumPy array [height, width, channels], or [N, channels] for images, with a JSON sidecar.",
        extensions = { "npy" },
        fields = {
            { name = "path", positional = true, type = "string", what = "a file name", required = true,
              help = "name below the output folder, .npy" },
            float16,
        },
    },
    {
        name = "preview", kind = "export",
        help = "A PNG: the first three principal components as red, green and blue.",
        extensions = { "png" },
        fields = {
            { name = "path", positional = true, type = "string", what = "a file name", required = true,
              help = "name below the output folder, .png" },
        },
    },
    {
        name = "embed", kind = "embed",
        help = "The job: what is embedded, by which encoders, into which files. A recipe ends with "
            .. "`return terrane.embed { ... }`.",
        fields = {
            title_field,
            { name = "scene", type = { "scene", "images" }, required = true, help = "what is embedded" },
            { name = "encoders", type = "encoder", list = true, single = true, max_items = 16, required = true,
              help = "one or more" },
            { name = "fusion", type = "fusion", help = "terrane.concat or terrane.average",
              otherwise = "terrane.concat {}" },
            { name = "tile", type = "integer", min = 16, max = 4096, help = "side of a window in pixels",
              otherwise = "what suits the encoders" },
            { name = "overlap", type = "integer", min = 0, max = 2048, default = 0,
              help = "pixels that neighbouring windows share" },
            { name = "batch", type = "integer", min = 1, max = 1024, help = "windows at once",
              otherwise = "from free memory" },
            { name = "precision", type = "choice", default = "float32", help = "how values lie in device memory",
              values = { { "float32", "all of them" }, { "float16", "half of the bytes, where kernels can" },
                         { "auto", "float16 where the device has it and is not known to be slower" } } },
            { name = "tile_vectors", type = "boolean", default = false, help = "one vector per window, not per cell" },
            { name = "export", type = { "string", "export" }, what = "a file name (.tif, .tiff, .npy or .png)",
              list = true, single = true, max_items = 16, required = true, help = "the files to write" },
            strict_field,
        },
    },
    {
        name = "reconstruct", kind = "reconstruct",
        help = "The other job: one window of a scene or series with some patches hidden, drawn again by an encoder and "
            .. "the decoder that it was trained with, as a picture. A recipe ends with "
            .. "`return terrane.reconstruct { ... }`.",
        fields = {
            title_field,
            { name = "scene", type = "scene", required = true, help = "where the window is" },
            { name = "encoder", type = "encoder", required = true,
              help = "a model with its decoder: prithvi-* or mae-hiera-* (not video); pool, weight and "
                  .. "remove_position have no meaning here" },
            { name = "mask_ratio", type = "number", above = 0, max = 1, default = 0.75,
              help = "how much of the patches is hidden, below 1" },
            { name = "seed", type = "integer", min = 0, max = 2147483647, default = 0,
              help = "of the choice of hidden patches" },
            { name = "size", type = "integer", min = 1, max = 4096, help = "side of the window in pixels",
              otherwise = "what suits the encoder" },
            { name = "place", type = "integer", list = true, max_items = 2, count = 2, min = 0, max = 2147483647,
              help = "column and row of the window's first pixel", otherwise = "the scene's centre" },
            { name = "export", type = "string", what = "a file name (.png)", default = "reconstruction.png",
              help = "the picture: per date the window, the window with its hidden patches, and what was drawn" },
            strict_field,
        },
    },
    {
        name = "dataset", kind = "dataset",
        help = "Labelled samples: a task folder of GEO-Bench, a folder of images with a split.csv, or a scene beside a "
            .. "raster of labels.",
        fields = {
            { name = "path", positional = true, type = "string", what = "a path", required = true,
              help = "folder, or scene" },
            { name = "labels", type = "string", what = "a path", help = "raster of labels on the grid of the scene",
              otherwise = "the folder has them" },
            { name = "partition", type = "string", what = "a name", help = "of GEO-Bench: 0.01x_train, say",
              otherwise = "default" },
            { name = "bands", type = "string", what = "a band name", list = true, max_items = 512,
              help = "bands to read, in this order", otherwise = "all" },
            sensor_field, scale_field, offset_field, unit_field,
            { name = "resize", type = "integer", min = 1, max = 4096,
              help = "side in pixels to which samples are brought (bilinear; masks by the nearest pixel)",
              otherwise = "samples stay as they are" },
            { name = "antialias", type = "boolean", default = false,
              help = "resize widens its filter when it makes smaller" },
            { name = "limit", type = "record", record_name = "limit",
              help = "at most so many samples, chosen by the seed", otherwise = "all",
              record = { count_of "train", count_of "valid", count_of "test" } },
            { name = "crop", type = "integer", min = 1, max = 4096,
              help = "side of a square of each sample: anywhere in training, the middle otherwise",
              otherwise = "whole samples" },
            { name = "flip", type = { "number", "record" }, min = 0, max = 1, record_name = "flip",
              help = "probability of a mirror image in training, of both axes or of each", otherwise = "0",
              record = { probability("x", "left to right"), probability("y", "top to bottom") } },
            { name = "rotate", type = "boolean", default = false,
              help = "training samples are turned by 0, 90, 180 or 270 degrees" },
            { name = "ignore", type = "integer", min = -2147483648, max = 2147483647,
              help = "value of masks that is no label" },
            { name = "fill", type = "number",
              help = "value of pixels without data or without a finite number", otherwise = "an error" },
            { name = "classes", type = { "integer", "string" }, what = "a name", min = 2, max = 65536, list = true,
              single = true, max_items = 65536, help = "how many classes there are, or their names in order",
              otherwise = "what the dataset says" },
            { name = "skip_missing", type = "boolean", default = false,
              help = "samples whose file is missing are left out" },
            { name = "bands_as_stored", type = "boolean", default = false,
              help = "bands have the names of GEO-Bench's files, also where these are wrong" },
            { name = "date", type = "integer", min = 1, max = 366, help = "of samples with several dates, from 1",
              otherwise = "several are an error" },
            { name = "chip", type = "integer", min = 8, max = 4096,
              help = "side of the squares into which a scene with labels is cut", otherwise = "64" },
            { name = "block", type = "integer", min = 1, max = 65536,
              help = "side in squares of the blocks that are drawn for valid and test", otherwise = "4" },
            { name = "shares", type = "record", record_name = "shares",
              help = "parts of the blocks with labels that valid and test get", otherwise = "0.2 each",
              record = { share_of "valid", share_of "test" } },
        },
    },
    {
        name = "linear", kind = "head",
        help = "Head: a linear layer over the features of an image; over each cell for masks.",
        fields = head_fields { batch_norm_field },
    },
    {
        name = "mlp", kind = "head",
        help = "Head: hidden layers with GELU, then a linear one; over the features of an image, or of each cell.",
        fields = head_fields {
            { name = "channels", type = "integer", min = 1, max = 65536, help = "of hidden layers",
              otherwise = "those of the features" },
            { name = "layers", type = "integer", min = 1, max = 64, default = 1, help = "hidden layers" },
            batch_norm_field,
        },
    },
    {
        name = "attention_pool", kind = "head",
        help = "Head for whole images: a learned query attends to the cells, then a linear layer.",
        fields = head_fields {
            { name = "heads", type = "integer", min = 1, max = 256, help = "of the attention",
              otherwise = "8, or fewer where the channels cannot be divided" },
        },
    },
    {
        name = "fcn", kind = "head",
        help = "Head for masks: convolutions over the last grid of the encoder.",
        fields = head_fields {
            channels_field,
            { name = "layers", type = "integer", min = 1, max = 64, default = 4, help = "convolutions" },
        },
    },
    {
        name = "upernet", kind = "head",
        help = "Head for masks: UperNet over the grids of the encoder; grids of one size pass a learned pyramid first.",
        fields = head_fields { channels_field },
    },
    {
        name = "graph", kind = "graph", builder = true,
        help = "A network of your own, as `head` or as `network`: a function that is given the operators `g` and the "
            .. "input `x`, and returns the result. It runs once, while the recipe is read.",
    },
    {
        name = "adamw", kind = "optimizer",
        help = "Optimiser: AdamW.",
        fields = optimizer_fields(1e-3, 0.05, {
            { name = "beta1", type = "number", min = 0, max = 0.999999, default = 0.9, help = "what the mean keeps" },
            { name = "beta2", type = "number", min = 0, max = 0.999999, default = 0.999,
              help = "what the variance keeps" },
            { name = "eps", type = "number", above = 0, max = 1, default = 1e-8, help = "added to the deviation" },
        }),
    },
    {
        name = "sgd", kind = "optimizer",
        help = "Optimiser: gradient descent with momentum.",
        fields = optimizer_fields(0.01, 0, {
            { name = "momentum", type = "number", min = 0, max = 0.999999, default = 0.9, help = "what it keeps" },
            { name = "nesterov", type = "boolean", default = false, help = "Nesterov's form" },
        }),
    },
    {
        name = "constant", kind = "schedule",
        help = "Schedule: the optimiser's rate throughout.",
        fields = schedule_fields {},
    },
    {
        name = "cosine", kind = "schedule",
        help = "Schedule: from the optimiser's rate down along half a cosine, until the last step.",
        fields = schedule_fields { last_rate },
    },
    {
        name = "step", kind = "schedule",
        help = "Schedule: the optimiser's rate, lowered at regular intervals.",
        fields = schedule_fields {
            { name = "every", type = "integer", min = 1, max = 2147483647, required = true,
              help = "steps of the optimiser between two cuts" },
            { name = "factor", type = "number", above = 0, max = 1, default = 0.1, help = "of each cut" },
            last_rate,
        },
    },
    {
        name = "cross_entropy", kind = "loss",
        help = "Loss of one class an image or a pixel.",
        fields = {
            { name = "label_smoothing", type = "number", min = 0, max = 1, default = 0,
              help = "share of the label that is spread over all classes" },
            weights_of_classes, balance_field,
        },
    },
    {
        name = "dice", kind = "loss",
        help = "Loss of masks: one minus the Dice coefficient, mean over classes.",
        fields = { weights_of_classes, balance_field },
    },
    {
        name = "ce_dice", kind = "loss",
        help = "Loss of masks: cross entropy plus Dice.",
        fields = { weights_of_classes, balance_field },
    },
    {
        name = "jaccard", kind = "loss",
        help = "Loss of masks: one minus intersection over union, mean over classes.",
        fields = { weights_of_classes, balance_field },
    },
    {
        name = "focal", kind = "loss",
        help = "Loss: cross entropy in which what is right already counts less.",
        fields = {
            { name = "gamma", type = "number", min = 0, max = 100, default = 2, help = "how much less" },
        },
    },
    {
        name = "binary", kind = "loss",
        help = "Loss of several labels an image: binary cross entropy of each class.",
        fields = {
            { name = "balanced", type = "boolean", default = false,
              help = "what is there and what is not count the same" },
            { name = "class_weights", type = "number", list = true, max_items = 65536, min = 0, max = 1e6,
              help = "a weight for each class where it is there", otherwise = "all 1" },
            balance_field,
        },
    },
    {
        name = "knn", kind = "probe",
        help = "Probe: the vote of the nearest training images.",
        fields = {
            { name = "k", type = "integer", min = 1, max = 1024, default = 5, help = "how many vote" },
            { name = "distance", type = "choice", default = "cosine", help = "between features",
              values = { { "cosine", "angle" }, { "l2", "length of the difference" } } },
            { name = "center", type = "boolean", default = false, help = "features less the mean of training" },
            probe_name "knn and k: knn5",
        },
    },
    {
        name = "logistic", kind = "probe",
        help = "Probe: logistic regression by L-BFGS, its C chosen on the validation split.",
        fields = {
            { name = "grid", type = "number", list = true, single = true, max_items = 64, above = 0, max = 1e12,
              help = "values of C to choose from", otherwise = "19 from 1e-6 to 1e3" },
            { name = "standardize", type = "boolean", default = false,
              help = "features to mean 0 and deviation 1 of training" },
            { name = "refit", type = "boolean", default = false,
              help = "once more on training and validation together, with the chosen C" },
            { name = "max_iterations", type = "integer", min = 1, max = 100000, default = 200, help = "of L-BFGS" },
            { name = "tolerance", type = "number", above = 0, max = 1, default = 1e-6,
              help = "largest component of the gradient at which it stops" },
            probe_name "logistic",
        },
    },
    {
        name = "linear_probe", kind = "probe",
        help = "Probe: a linear layer trained by AdamW, its learning rate and epoch chosen on the validation split.",
        fields = {
            { name = "epochs", type = "integer", min = 1, max = 100000, default = 100, help = "of training" },
            { name = "batch", type = "integer", min = 1, max = 65536, default = 256, help = "samples of a step" },
            { name = "rates", type = "number", list = true, single = true, max_items = 64, above = 0, max = 1000,
              help = "learning rates to choose from", otherwise = "3e-4, 1e-3, 3e-3, 1e-2, 3e-2" },
            { name = "weight_decay", type = "number", min = 0, max = 1000, default = 0, help = "of the layer" },
            { name = "batch_norm", type = "boolean", default = false,
              help = "features pass a batch norm without weights first" },
            probe_name "linear",
        },
    },
    {
        name = "probe", kind = "probing",
        help = "A job: what can be read off the features of frozen encoders. They are computed once and kept. A recipe "
            .. "ends with `return terrane.probe { ... }`.",
        fields = learning_job({ help = "one or more, frozen", required = true }, {
            { name = "probes", type = "probe", list = true, single = true, max_items = 3,
              help = "terrane.knn, terrane.linear_probe, terrane.logistic, each once", otherwise = "all three" },
            { name = "batch", type = "integer", min = 1, max = 1024, help = "images at once", otherwise = "32" },
            { name = "cache", type = "string", what = "a path", help = "folder where features are kept",
              otherwise = "Terrane's cache folder" },
        }),
    },
    {
        name = "train", kind = "training",
        help = "A job: encoders, or a network of your own, and a head learn from a dataset. Stopped at any moment and "
            .. "started again, it goes on. A recipe ends with `return terrane.train { ... }`.",
        fields = learning_job({ help = 'one or more; weights = "fresh" begins from scratch', otherwise = "network" }, {
            { name = "network", type = "graph", help = "in place of encoders; images are normalised by the dataset",
              otherwise = "encoders" },
            { name = "head", type = { "head", "graph" }, help = "from features to classes",
              otherwise = "terrane.linear {}" },
            { name = "loss", type = "loss", help = "what is made smaller",
              otherwise = "terrane.cross_entropy {}; of several labels terrane.binary {}" },
            { name = "optimizer", type = "optimizer", help = "terrane.adamw or terrane.sgd",
              otherwise = "terrane.adamw {}" },
            { name = "schedule", type = "schedule", help = "of the learning rate", otherwise = "terrane.cosine {}" },
            { name = "epochs", type = "integer", min = 1, max = 1000000, default = 50,
              help = "times that all training samples are seen" },
            { name = "batch", type = "integer", min = 1, max = 65536, default = 32, help = "samples at once" },
            { name = "accumulate", type = "integer", min = 1, max = 65536, default = 1,
              help = "batches whose gradients make one step" },
            { name = "freeze", type = "string", what = "a pattern of names", list = true, single = true,
              max_items = 256, help = "parameters that stay as they are: encoder.*, *.bias", otherwise = "all learn" },
            { name = "layer_decay", type = "number", above = 0, max = 1, default = 1,
              help = "factor of the learning rate from layer to layer, from the head down" },
            { name = "head_rate", type = "number", above = 0, max = 1000, default = 1,
              help = "factor of the learning rate of head and network" },
            { name = "dropout", type = "number", min = 0, max = 0.99, default = 0, help = "in the encoders" },
            { name = "drop_path", type = "number", min = 0, max = 0.99, default = 0,
              help = "in the encoders: of their last block, falling to 0 at the first" },
            { name = "fixed_norm", type = "boolean", default = false, help = "batch norms keep their statistics" },
            { name = "recompute", type = "boolean", default = false,
              help = "less memory for more time: blocks are computed twice" },
            { name = "precision", type = "choice", default = "float32", help = "of matrix products",
              values = { { "float32", "all values" }, { "mixed", "operands as float16, with loss scaling" } } },
            { name = "patience", type = "integer", min = 0, max = 1000000, default = 0,
              help = "epochs without a better metric before it stops; 0: it never does" },
            { name = "metric", type = "string", what = "a metric", help = "by which the best epoch is chosen",
              otherwise = "accuracy; mean_iou of masks; micro_map of several labels" },
            { name = "clip", type = "number", above = 0, max = 1e6, help = "longest gradient, over all parameters",
              otherwise = "gradients are not clipped" },
            { name = "average", type = "number", above = 0, max = 0.999999,
              help = "what the moving average of the weights keeps in a step", otherwise = "there is none" },
            { name = "checkpoint_seconds", type = "number", above = 0, max = 1e6, default = 60,
              help = "between checkpoints within an epoch" },
        }),
    },
}
