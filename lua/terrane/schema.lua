-- schema: every constructor of recipes and its fields, described once. The checks of check.lua, the tables of
-- docs/recipes.md and the stubs of lua/meta/terrane.lua all come from here.
--
-- A field: name; type (one name or a list of alternatives: string, integer, number, boolean, choice, paths (a text or a
-- list of texts), or the name of a constructor); help; required; default, or otherwise (in words: what
-- happens without it); min, max, above (exclusive), multiple;
-- values { {value, help} } of a choice; what (what a string is); list (a list of such values, at most max_items);
-- count (the list must have just so many); single (one value may stand without braces); record (the elements are plain
-- tables with these fields).

local units = {
    { "any", "digital numbers of no known unit" },
    { "reflectance", "0 to 1" },
    { "decibel", "radar backscatter in dB" },
    { "byte", "display values, 0 to 255" },
    { "kelvin", "brightness temperature" },
}

-- What scene and images share.
local function with_values(fields)
    local shared = {
        { name = "sensor", type = { "string", "sensor" }, what = "a sensor's name",
          help = "which sensor took it: names the bands, the unit and the scale" },
        { name = "bands", type = "string", what = "a band name", list = true, max_items = 512,
          help = "names of the bands in file order, where the file does not tell" },
        { name = "scale", type = "number",
          help = "physical value = stored value * scale + offset; wins over the sensor's", otherwise = "the sensor's" },
        { name = "offset", type = "number", help = "see scale", otherwise = "the sensor's; 0 beside scale" },
        { name = "unit", type = "choice", values = units, help = "unit of the physical values",
          otherwise = "the sensor's" },
        { name = "nodata", type = "number", help = "stored value that means: no data here",
          otherwise = "from the file" },
        { name = "location", type = "number", list = true, max_items = 2, count = 2, min = -360, max = 360,
          help = "latitude and longitude in degrees, for encoders that look at the place",
          otherwise = "by the georeference" },
    }
    for _, field in ipairs(shared) do
        fields[#fields + 1] = field
    end
    return fields
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
            { name = "title", type = "string", what = "text", help = "one line for --help",
              otherwise = "the recipe's name" },
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
            { name = "tile_vectors", type = "boolean", default = false, help = "one vector per window, not per cell" },
            { name = "export", type = { "string", "export" }, what = "a file name (.tif, .tiff, .npy or .png)",
              list = true, single = true, max_items = 16, required = true, help = "the files to write" },
            { name = "strict", type = "boolean", default = false, help = "warnings about the input stop the run" },
        },
    },
    {
        name = "reconstruct", kind = "reconstruct",
        help = "The other job: one window of a scene or series with some patches hidden, drawn again by an encoder and "
            .. "the decoder that it was trained with, as a picture. A recipe ends with "
            .. "`return terrane.reconstruct { ... }`.",
        fields = {
            { name = "title", type = "string", what = "text", help = "one line for --help",
              otherwise = "the recipe's name" },
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
            { name = "strict", type = "boolean", default = false, help = "warnings about the input stop the run" },
        },
    },
}
