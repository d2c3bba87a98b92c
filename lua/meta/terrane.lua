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

---@class (exact) terrane.Dataset

---@class (exact) terrane.Head

---@class (exact) terrane.Optimizer

---@class (exact) terrane.Schedule

---@class (exact) terrane.Loss

---@class (exact) terrane.Probe

---@class (exact) terrane.Probing

---@class (exact) terrane.Training

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
---@field precision? "float32"|"float16"|"auto" how values lie in device memory (default: float32)
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

---@class terrane.LimitFields
---@field train? integer samples of this split (default: all)
---@field valid? integer samples of this split (default: all)
---@field test? integer samples of this split (default: all)

---@class terrane.FlipFields
---@field x? number left to right (default: 0)
---@field y? number top to bottom (default: 0)

---@class terrane.SharesFields
---@field valid? number of this split; 0: it has none (default: 0.2)
---@field test? number of this split; 0: it has none (default: 0.2)

---@class terrane.DatasetFields
---@field [1] string folder, or scene
---@field labels? string raster of labels on the grid of the scene (default: the folder has them)
---@field partition? string of GEO-Bench: 0.01x_train, say (default: default)
---@field bands? string[] bands to read, in this order (default: all)
---@field sensor? string|terrane.Sensor which sensor took it: names the bands, the unit and the scale (default: none)
---@field scale? number physical value = stored value * scale + offset; wins over the sensor's (default: the sensor's)
---@field offset? number see scale (default: the sensor's; 0 beside scale)
---@field unit? "any"|"reflectance"|"decibel"|"byte"|"kelvin" unit of the physical values (default: the sensor's)
---@field resize? integer side in pixels to which samples are brought (bilinear; masks by the nearest pixel) (default: samples stay as they are)
---@field antialias? boolean resize widens its filter when it makes smaller (default: false)
---@field limit? terrane.LimitFields at most so many samples, chosen by the seed (default: all)
---@field crop? integer side of a square of each sample: anywhere in training, the middle otherwise (default: whole samples)
---@field flip? number|terrane.FlipFields probability of a mirror image in training, of both axes or of each (default: 0)
---@field rotate? boolean training samples are turned by 0, 90, 180 or 270 degrees (default: false)
---@field ignore? integer value of masks that is no label (default: none)
---@field fill? number value of pixels without data or without a finite number (default: an error)
---@field classes? integer|string|(integer|string)[] how many classes there are, or their names in order (default: what the dataset says)
---@field skip_missing? boolean samples whose file is missing are left out (default: false)
---@field bands_as_stored? boolean bands have the names of GEO-Bench's files, also where these are wrong (default: false)
---@field date? integer of samples with several dates, from 1 (default: several are an error)
---@field chip? integer side of the squares into which a scene with labels is cut (default: 64)
---@field block? integer side in squares of the blocks that are drawn for valid and test (default: 4)
---@field shares? terrane.SharesFields parts of the blocks with labels that valid and test get (default: 0.2 each)

---Labelled samples: a task folder of GEO-Bench, a folder of images with a split.csv, or a scene beside a raster of labels.
---@param fields terrane.DatasetFields|string
---@return terrane.Dataset
function terrane.dataset(fields) end

---@class terrane.LinearFields
---@field batch_norm? boolean features of whole images pass a batch norm without weights first (default: false)
---@field dropout? number before the last layer (default: 0)

---Head: a linear layer over the features of an image; over each cell for masks.
---@param fields terrane.LinearFields
---@return terrane.Head
function terrane.linear(fields) end

---@class terrane.MlpFields
---@field channels? integer of hidden layers (default: those of the features)
---@field layers? integer hidden layers (default: 1)
---@field batch_norm? boolean features of whole images pass a batch norm without weights first (default: false)
---@field dropout? number before the last layer (default: 0)

---Head: hidden layers with GELU, then a linear one; over the features of an image, or of each cell.
---@param fields terrane.MlpFields
---@return terrane.Head
function terrane.mlp(fields) end

---@class terrane.Attention_poolFields
---@field heads? integer of the attention (default: 8, or fewer where the channels cannot be divided)
---@field dropout? number before the last layer (default: 0)

---Head for whole images: a learned query attends to the cells, then a linear layer.
---@param fields terrane.Attention_poolFields
---@return terrane.Head
function terrane.attention_pool(fields) end

---@class terrane.FcnFields
---@field channels? integer of its layers (default: 256)
---@field layers? integer convolutions (default: 4)
---@field dropout? number before the last layer (default: 0)

---Head for masks: convolutions over the last grid of the encoder.
---@param fields terrane.FcnFields
---@return terrane.Head
function terrane.fcn(fields) end

---@class terrane.UpernetFields
---@field channels? integer of its layers (default: 256)
---@field dropout? number before the last layer (default: 0)

---Head for masks: UperNet over the grids of the encoder; grids of one size pass a learned pyramid first.
---@param fields terrane.UpernetFields
---@return terrane.Head
function terrane.upernet(fields) end

---@class (exact) terrane.Value

---@class (exact) terrane.Graph

---@class terrane.OperatorFields
---@field name? string of its parameters (default: number and operator)

---@class terrane.Operator_conv: terrane.OperatorFields
---@field channels number of the result
---@field kernel? number side in pixels (default: 3)
---@field stride? number step in pixels (default: 1)
---@field padding? number zeros around the map; half the kernel when left out, so that the size stays
---@field bias? boolean add a learned vector (default: true)

---@class terrane.Operator_linear: terrane.OperatorFields
---@field channels number of the result
---@field bias? boolean add a learned vector (default: true)

---@class terrane.Operator_layer_norm: terrane.OperatorFields
---@field eps? number added to the variance (default: 1e-6)

---@class terrane.Operator_batch_norm: terrane.OperatorFields
---@field eps? number added to the variance (default: 1e-5)
---@field momentum? number share of a batch in the running statistics (default: 0.1)

---@class terrane.Operator_max_pool: terrane.OperatorFields
---@field size? number side of the window (default: 2)
---@field stride? number step; the size when left out

---@class terrane.Operator_mean_pool: terrane.OperatorFields
---@field size? number side of the window (default: 2)
---@field stride? number step; the size when left out

---@class terrane.Operator_resize: terrane.OperatorFields
---@field scale? number factor of height and width
---@field height? number of the result
---@field width? number of the result
---@field mode? string bilinear, nearest or bicubic (default: bilinear)

---@class terrane.Operator_dropout: terrane.OperatorFields
---@field rate? number the probability (default: 0.1)

---@class terrane.Operator_drop_path: terrane.OperatorFields
---@field rate? number the probability (default: 0.1)

---@class terrane.Operator_map: terrane.OperatorFields
---@field height? number of the map; a square when left out
---@field width? number of the map

---@class terrane.Operator_attention_block: terrane.OperatorFields
---@field heads? number of the attention; channels must be a multiple (default: 4)
---@field mlp_ratio? number hidden channels of the MLP (default: 4)
---@field eps? number of the norms (default: 1e-6)
---@field layer_scale? boolean learned scales of both branches (default: false)

---@class (exact) terrane.Operators
---@field conv fun(x: terrane.Value, fields?: terrane.Operator_conv): terrane.Value Convolution of a map.
---@field linear fun(x: terrane.Value, fields?: terrane.Operator_linear): terrane.Value Linear map of channels: of vectors, of each token, of each cell of a map.
---@field layer_norm fun(x: terrane.Value, fields?: terrane.Operator_layer_norm): terrane.Value Layer norm over channels, with learned scale and shift.
---@field batch_norm fun(x: terrane.Value, fields?: terrane.Operator_batch_norm): terrane.Value Batch norm of a map or of vectors.
---@field relu fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value max(x, 0)
---@field gelu fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value x times the normal distribution at x
---@field gelu_tanh fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value GELU by its formula with tanh
---@field silu fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value x sigmoid(x)
---@field sigmoid fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value 1 / (1 + exp(-x))
---@field tanh fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value Hyperbolic tangent.
---@field softmax fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value Softmax over channels.
---@field add fun(...: terrane.Value|terrane.OperatorFields): terrane.Value Sum of values of one shape; vectors are added to every place of a map or token.
---@field mul fun(...: terrane.Value|terrane.OperatorFields): terrane.Value Product of values of one shape; vectors scale every place of a map or token.
---@field concat fun(...: terrane.Value|terrane.OperatorFields): terrane.Value Values side by side along channels.
---@field max_pool fun(x: terrane.Value, fields?: terrane.Operator_max_pool): terrane.Value Largest value of each window of a map.
---@field mean_pool fun(x: terrane.Value, fields?: terrane.Operator_mean_pool): terrane.Value Mean of each window of a map.
---@field resize fun(...: terrane.Value|terrane.Operator_resize): terrane.Value A map in another size: by a factor, to a size, or to that of a second map.
---@field mean fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value Vectors: the mean over all places of a map, or over all tokens.
---@field max fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value Vectors: the largest over all places of a map, or over all tokens.
---@field dropout fun(x: terrane.Value, fields?: terrane.Operator_dropout): terrane.Value In training each value is 0 with this probability, the others are scaled up.
---@field drop_path fun(x: terrane.Value, fields?: terrane.Operator_drop_path): terrane.Value The same of whole samples, for the branch that a g.add joins.
---@field flatten fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value All values of a sample as one vector.
---@field tokens fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value A map as tokens, row by row.
---@field map fun(x: terrane.Value, fields?: terrane.Operator_map): terrane.Value Tokens as a map, row by row.
---@field position fun(x: terrane.Value, fields?: terrane.OperatorFields): terrane.Value Adds a learned table of the size of the map or of the tokens.
---@field attention_block fun(x: terrane.Value, fields?: terrane.Operator_attention_block): terrane.Value Block of a vision transformer (norm, attention, norm, MLP) over tokens or a map.

---A network of your own, as `head` or as `network`: a function that is given the operators `g` and the input `x`, and returns the result. It runs once, while the recipe is read.
---@param build fun(g: terrane.Operators, x: terrane.Value): terrane.Value
---@return terrane.Graph
function terrane.graph(build) end

---@class terrane.AdamwFields
---@field rate? number learning rate (default: 0.001)
---@field weight_decay? number of matrices and kernels; biases, norms, positions and tokens have none (default: 0.05)
---@field coupled_decay? boolean weight decay is part of the gradient (default: false)
---@field beta1? number what the mean keeps (default: 0.9)
---@field beta2? number what the variance keeps (default: 0.999)
---@field eps? number added to the deviation (default: 1e-08)

---Optimiser: AdamW.
---@param fields terrane.AdamwFields
---@return terrane.Optimizer
function terrane.adamw(fields) end

---@class terrane.SgdFields
---@field rate? number learning rate (default: 0.01)
---@field weight_decay? number of matrices and kernels; biases, norms, positions and tokens have none (default: 0)
---@field coupled_decay? boolean weight decay is part of the gradient (default: false)
---@field momentum? number what it keeps (default: 0.9)
---@field nesterov? boolean Nesterov's form (default: false)

---Optimiser: gradient descent with momentum.
---@param fields terrane.SgdFields
---@return terrane.Optimizer
function terrane.sgd(fields) end

---@class terrane.ConstantFields
---@field warmup_epochs? number epochs in which the rate grows in a straight line (default: 0)
---@field start? number rate at the beginning of warm-up (default: 0)

---Schedule: the optimiser's rate throughout.
---@param fields terrane.ConstantFields
---@return terrane.Schedule
function terrane.constant(fields) end

---@class terrane.CosineFields
---@field warmup_epochs? number epochs in which the rate grows in a straight line (default: 0)
---@field start? number rate at the beginning of warm-up (default: 0)
---@field last? number rate that it does not fall below (default: 0)

---Schedule: from the optimiser's rate down along half a cosine, until the last step.
---@param fields terrane.CosineFields
---@return terrane.Schedule
function terrane.cosine(fields) end

---@class terrane.StepFields
---@field warmup_epochs? number epochs in which the rate grows in a straight line (default: 0)
---@field start? number rate at the beginning of warm-up (default: 0)
---@field every integer steps of the optimiser between two cuts
---@field factor? number of each cut (default: 0.1)
---@field last? number rate that it does not fall below (default: 0)

---Schedule: the optimiser's rate, lowered at regular intervals.
---@param fields terrane.StepFields
---@return terrane.Schedule
function terrane.step(fields) end

---@class terrane.Cross_entropyFields
---@field label_smoothing? number share of the label that is spread over all classes (default: 0)
---@field class_weights? number[] a weight for each class (default: all 1)
---@field balance? boolean class weights from how often classes occur in training: total / (classes * count) (default: false)

---Loss of one class an image or a pixel.
---@param fields terrane.Cross_entropyFields
---@return terrane.Loss
function terrane.cross_entropy(fields) end

---@class terrane.DiceFields
---@field class_weights? number[] a weight for each class (default: all 1)
---@field balance? boolean class weights from how often classes occur in training: total / (classes * count) (default: false)

---Loss of masks: one minus the Dice coefficient, mean over classes.
---@param fields terrane.DiceFields
---@return terrane.Loss
function terrane.dice(fields) end

---@class terrane.Ce_diceFields
---@field class_weights? number[] a weight for each class (default: all 1)
---@field balance? boolean class weights from how often classes occur in training: total / (classes * count) (default: false)

---Loss of masks: cross entropy plus Dice.
---@param fields terrane.Ce_diceFields
---@return terrane.Loss
function terrane.ce_dice(fields) end

---@class terrane.JaccardFields
---@field class_weights? number[] a weight for each class (default: all 1)
---@field balance? boolean class weights from how often classes occur in training: total / (classes * count) (default: false)

---Loss of masks: one minus intersection over union, mean over classes.
---@param fields terrane.JaccardFields
---@return terrane.Loss
function terrane.jaccard(fields) end

---@class terrane.FocalFields
---@field gamma? number how much less (default: 2)

---Loss: cross entropy in which what is right already counts less.
---@param fields terrane.FocalFields
---@return terrane.Loss
function terrane.focal(fields) end

---@class terrane.BinaryFields
---@field balanced? boolean what is there and what is not count the same (default: false)
---@field class_weights? number[] a weight for each class where it is there (default: all 1)
---@field balance? boolean class weights from how often classes occur in training: total / (classes * count) (default: false)

---Loss of several labels an image: binary cross entropy of each class.
---@param fields terrane.BinaryFields
---@return terrane.Loss
function terrane.binary(fields) end

---@class terrane.KnnFields
---@field k? integer how many vote (default: 5)
---@field distance? "cosine"|"l2" between features (default: cosine)
---@field center? boolean features less the mean of training (default: false)
---@field name? string of its figure in result.json (default: knn and k: knn5)

---Probe: the vote of the nearest training images.
---@param fields terrane.KnnFields
---@return terrane.Probe
function terrane.knn(fields) end

---@class terrane.LogisticFields
---@field grid? number|number[] values of C to choose from (default: 19 from 1e-6 to 1e3)
---@field standardize? boolean features to mean 0 and deviation 1 of training (default: false)
---@field refit? boolean once more on training and validation together, with the chosen C (default: false)
---@field max_iterations? integer of L-BFGS (default: 200)
---@field tolerance? number largest component of the gradient at which it stops (default: 1e-06)
---@field name? string of its figure in result.json (default: logistic)

---Probe: logistic regression by L-BFGS, its C chosen on the validation split.
---@param fields terrane.LogisticFields
---@return terrane.Probe
function terrane.logistic(fields) end

---@class terrane.Linear_probeFields
---@field epochs? integer of training (default: 100)
---@field batch? integer samples of a step (default: 256)
---@field rates? number|number[] learning rates to choose from (default: 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
---@field weight_decay? number of the layer (default: 0)
---@field batch_norm? boolean features pass a batch norm without weights first (default: false)
---@field name? string of its figure in result.json (default: linear)

---Probe: a linear layer trained by AdamW, its learning rate and epoch chosen on the validation split.
---@param fields terrane.Linear_probeFields
---@return terrane.Probe
function terrane.linear_probe(fields) end

---@class terrane.ProbeFields
---@field title? string one line for --help (default: the recipe's name)
---@field data terrane.Dataset what is learned from
---@field encoders terrane.Encoder|terrane.Encoder[] one or more, frozen
---@field fusion? terrane.Fusion terrane.concat or terrane.average (default: terrane.concat {})
---@field probes? terrane.Probe|terrane.Probe[] terrane.knn, terrane.linear_probe, terrane.logistic, each once (default: all three)
---@field batch? integer images at once (default: 32)
---@field cache? string folder where features are kept (default: Terrane's cache folder)
---@field seed? integer of everything that is left to chance: the same seed gives the same bits (default: 0)
---@field strict? boolean warnings about the input stop the run (default: false)

---A job: what can be read off the features of frozen encoders. They are computed once and kept. A recipe ends with `return terrane.probe { ... }`.
---@param fields terrane.ProbeFields
---@return terrane.Probing
function terrane.probe(fields) end

---@class terrane.TrainFields
---@field title? string one line for --help (default: the recipe's name)
---@field data terrane.Dataset what is learned from
---@field encoders? terrane.Encoder|terrane.Encoder[] one or more; weights = "fresh" begins from scratch (default: network)
---@field fusion? terrane.Fusion terrane.concat or terrane.average (default: terrane.concat {})
---@field network? terrane.Graph in place of encoders; images are normalised by the dataset (default: encoders)
---@field head? terrane.Head|terrane.Graph from features to classes (default: terrane.linear {})
---@field loss? terrane.Loss what is made smaller (default: terrane.cross_entropy {}; of several labels terrane.binary {})
---@field optimizer? terrane.Optimizer terrane.adamw or terrane.sgd (default: terrane.adamw {})
---@field schedule? terrane.Schedule of the learning rate (default: terrane.cosine {})
---@field epochs? integer times that all training samples are seen (default: 50)
---@field batch? integer samples at once (default: 32)
---@field accumulate? integer batches whose gradients make one step (default: 1)
---@field freeze? string|string[] parameters that stay as they are: encoder.*, *.bias (default: all learn)
---@field layer_decay? number factor of the learning rate from layer to layer, from the head down (default: 1)
---@field head_rate? number factor of the learning rate of head and network (default: 1)
---@field dropout? number in the encoders (default: 0)
---@field drop_path? number in the encoders: of their last block, falling to 0 at the first (default: 0)
---@field fixed_norm? boolean batch norms keep their statistics (default: false)
---@field recompute? boolean less memory for more time: blocks are computed twice (default: false)
---@field precision? "float32"|"mixed" of matrix products (default: float32)
---@field patience? integer epochs without a better metric before it stops; 0: it never does (default: 0)
---@field metric? string by which the best epoch is chosen (default: accuracy; mean_iou of masks; micro_map of several labels)
---@field clip? number longest gradient, over all parameters (default: gradients are not clipped)
---@field average? number what the moving average of the weights keeps in a step (default: there is none)
---@field checkpoint_seconds? number between checkpoints within an epoch (default: 60)
---@field seed? integer of everything that is left to chance: the same seed gives the same bits (default: 0)
---@field strict? boolean warnings about the input stop the run (default: false)

---A job: encoders, or a network of your own, and a head learn from a dataset. Stopped at any moment and started again, it goes on. A recipe ends with `return terrane.train { ... }`.
---@param fields terrane.TrainFields
---@return terrane.Training
function terrane.train(fields) end

return terrane
