---@meta terrane
-- Generated from lua/terrane/schema.lua by lua/tools/document.lua; do not edit.
-- luacheck: no max line length

---@class (exact) terrane.Scene

---@class (exact) terrane.Images

---@class (exact) terrane.Sensor

---@class (exact) terrane.Encoder

---@class (exact) terrane.Fusion

---@class (exact) terrane.Export

---@class (exact) terrane.Embed

---@class (exact) terrane.Reconstruct

local terrane = {}

---@class terrane.ParamFields
---@field default string|integer|number|boolean the value without --set; it decides the type
---@field help? string one line for --help (default: none)
---@field min? number smallest number allowed (default: none)
---@field max? number largest number allowed (default: none)
---@field values? string[] the texts allowed (default: none)

---Declares what `--set KEY=VALUE` may change. Each key gives a parameter; its type is that of its default. A bare value is short for { default = value }. Reading an undeclared one is an error.
---@param declared table<string, terrane.ParamFields|string|number|boolean>
---@return table<string, any> values
function terrane.params(declared) end

---@class terrane.SceneFields
---@field [integer] string|string[] file or files (default: dates)
---@field dates? string[][] the files of each date of a series, in place of the first values (default: by the bands)
---@field acquired? string|string[] when each date was taken (default: the date in the files' names, or their DateTime tag)
---@field sensor? string|terrane.Sensor which sensor took it: names the bands, the unit and the scale (default: none)
---@field bands? string[] names of the bands in file order, where the file does not tell (default: none)
---@field scale? number physical value = stored value * scale + offset; wins over the sensor's (default: the sensor's)
---@field offset? number see scale (default: the sensor's; 0 beside scale)
---@field unit? "any"|"reflectance"|"decibel"|"byte"|"kelvin" unit of the physical values (default: the sensor's)
---@field nodata? number stored value that means: no data here (default: from the file)
---@field location? number[] latitude and longitude in degrees, for encoders that look at the place (default: by the georeference)

---One scene: a GeoTIFF, or several files that belong together (one per band, say). A file whose bands are there already begins the next date of a series; or `dates` says which files are of which date.
---@param fields terrane.SceneFields|string
---@return terrane.Scene
function terrane.scene(fields) end

---@class terrane.ImagesFields
---@field [integer] string|string[] folder, or files
---@field resize? integer side in pixels to which every image is brought (bilinear) (default: images stay as they are)
---@field sensor? string|terrane.Sensor which sensor took it: names the bands, the unit and the scale (default: none)
---@field bands? string[] names of the bands in file order, where the file does not tell (default: none)
---@field scale? number physical value = stored value * scale + offset; wins over the sensor's (default: the sensor's)
---@field offset? number see scale (default: the sensor's; 0 beside scale)
---@field unit? "any"|"reflectance"|"decibel"|"byte"|"kelvin" unit of the physical values (default: the sensor's)
---@field nodata? number stored value that means: no data here (default: from the file)
---@field location? number[] latitude and longitude in degrees, for encoders that look at the place (default: by the georeference)

---Many images, each of which gives one vector: a folder, or files.
---@param fields terrane.ImagesFields|string
---@return terrane.Images
function terrane.images(fields) end

---@class terrane.BandFields
---@field name string the sensor's own name: B04
---@field common? string common name by which encoders ask: red, nir, swir16, vv (default: the name)
---@field wavelength? number centre in micrometres (default: none)
---@field gsd? number ground sampling distance in metres (default: unknown)
---@field aliases? string[] other spellings (default: none)

---@class terrane.SensorFields
---@field name string short name
---@field title? string full name (default: the name)
---@field unit? "any"|"reflectance"|"decibel"|"byte"|"kelvin" unit of stored value * scale + offset (default: any)
---@field scale? number stored to unit (default: 1)
---@field offset? number stored to unit (default: 0)
---@field nodata? number usual nodata value (default: none)
---@field bands terrane.BandFields[] the bands in file order

---A sensor of your own, to be used as `sensor` of a scene.
---@param fields terrane.SensorFields
---@return terrane.Sensor
function terrane.sensor(fields) end

---@class terrane.EncoderFields
---@field [1] string model as `terrane models` names it
---@field weights? string weights file (default: none)
---@field wrapper? string which weights of a checkpoint that holds several sets, such as teacher (default: recognised)
---@field bands? string[] scene bands it may use, in any spelling (default: all)
---@field normalize? "model"|"none"|"zscore" how values are normalised (default: model)
---@field pool? "none"|"mean"|"cls" what comes out (default: none for a scene, mean for images and tile_vectors)
---@field date? integer which date of a series it sees, from 1 (default: all dates)
---@field display? number for encoders of display bytes over a scene of reflectance: the reflectance that becomes 255 (values are held within 0 to 255) (default: none)
---@field weight? number of its features in the fusion (default: 1)
---@field remove_position? boolean dense features less those of a window of the scene's mean colour: takes out where in the window a cell lies (default: false)
---@field [string] string|number|boolean settings of the model

---One encoder. Every field that is not listed here is a setting of the model itself (for `rcf`: features, cell, patch, seed; for `galileo-nano`: patch, month); a wrong one is answered with all there are.
---@param fields terrane.EncoderFields|string
---@return terrane.Encoder
function terrane.encoder(fields) end

---@class terrane.ConcatFields
---@field cell? integer pixels per cell of the common grid (default: the finest grid of the encoders)
---@field l2? boolean bring each encoder's vector to length 1 first (default: false)

---Fusion: the vectors of all encoders side by side.
---@param fields terrane.ConcatFields
---@return terrane.Fusion
function terrane.concat(fields) end

---@class terrane.AverageFields
---@field cell? integer pixels per cell of the common grid (default: the finest grid of the encoders)
---@field l2? boolean bring each encoder's vector to length 1 first (default: false)

---Fusion: the weighted mean of vectors of equal length.
---@param fields terrane.AverageFields
---@return terrane.Fusion
function terrane.average(fields) end

---@class terrane.GeotiffFields
---@field [1] string name below the output folder, .tif or .tiff
---@field compression? "none"|"lzw"|"deflate"|"zstd" of the file's blocks (default: deflate)
---@field block? integer side of the file's blocks in cells (default: 256)
---@field float16? boolean store half precision (default: false)

---A GeoTIFF with one band per channel and the scene's georeference.
---@param fields terrane.GeotiffFields|string
---@return terrane.Export
function terrane.geotiff(fields) end

---@class terrane.NpyFields
---@field [1] string name below the output folder, .npy
---@field float16? boolean store half precision (default: false)

---A NumPy array [height, width, channels], or [N, channels] for images, with a JSON sidecar.
---@param fields terrane.NpyFields|string
---@return terrane.Export
function terrane.npy(fields) end

---@class terrane.PreviewFields
---@field [1] string name below the output folder, .png

---A PNG: the first three principal components as red, green and blue.
---@param fields terrane.PreviewFields|string
---@return terrane.Export
function terrane.preview(fields) end

---@class terrane.EmbedFields
---@field title? string one line for --help (default: the recipe's name)
---@field scene terrane.Scene|terrane.Images what is embedded
---@field encoders terrane.Encoder|terrane.Encoder[] one or more
---@field fusion? terrane.Fusion terrane.concat or terrane.average (default: terrane.concat {})
---@field tile? integer side of a window in pixels (default: what suits the encoders)
---@field overlap? integer pixels that neighbouring windows share (default: 0)
---@field batch? integer windows at once (default: from free memory)
---@field tile_vectors? boolean one vector per window, not per cell (default: false)
---@field export string|terrane.Export|(string|terrane.Export)[] the files to write
---@field strict? boolean warnings about the input stop the run (default: false)

---The job: what is embedded, by which encoders, into which files. A recipe ends with `return terrane.embed { ... }`.
---@param fields terrane.EmbedFields
---@return terrane.Embed
function terrane.embed(fields) end

---@class terrane.ReconstructFields
---@field title? string one line for --help (default: the recipe's name)
---@field scene terrane.Scene where the window is
---@field encoder terrane.Encoder a model with its decoder: prithvi-* or mae-hiera-* (not video); pool, weight and remove_position have no meaning here
---@field mask_ratio? number how much of the patches is hidden, below 1 (default: 0.75)
---@field seed? integer of the choice of hidden patches (default: 0)
---@field size? integer side of the window in pixels (default: what suits the encoder)
---@field place? integer[] column and row of the window's first pixel (default: the scene's centre)
---@field export? string the picture: per date the window, the window with its hidden patches, and what was drawn (default: reconstruction.png)
---@field strict? boolean warnings about the input stop the run (default: false)

---The other job: one window of a scene or series with some patches hidden, drawn again by an encoder and the decoder that it was trained with, as a picture. A recipe ends with `return terrane.reconstruct { ... }`.
---@param fields terrane.ReconstructFields
---@return terrane.Reconstruct
function terrane.reconstruct(fields) end

return terrane
