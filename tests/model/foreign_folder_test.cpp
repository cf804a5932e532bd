// Folders and files in model.path that are no model in Hugging Face's form, or not all of one.

#include "model/foreign_folder.h"

#include <gmock/gmock.h>

#include "support/base_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::string kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";

class ForeignFolder : public test::BaseFolder {
 protected:
  /// A folder with a config.json and these files.
  fs::path with_files(const std::string& name, const std::vector<std::string>& files, bool has_config = true) {
    const fs::path folder = folder_ / name;
    fs::create_directories(folder);
    if (has_config) test::write_file(folder / "config.json", test::to_json({}).dump());
    for (const std::string& file : files) {
      fs::create_directories((folder / file).parent_path());
      test::write_file(folder / file, "not read");
    }
    return folder;
  }
  /// What is said, behind the place and the folder's name.
  std::string said_of(const fs::path& folder) const { return said_of(given(folder)); }
  std::string said_of(const Model::Settings& settings) const {
    const std::string text = fault(settings),
                      place = fmt::format("a.toml:2:1: model.path \"{}\" ", settings.model.path.string());
    return text.starts_with(place) ? text.substr(place.size()) : text;
  }
  static std::string python(const std::string& from, const std::string& to, const std::string& packages = "",
                            const std::string& imports = "", const std::string& arguments = "",
                            const std::string& then = "") {
    return fmt::format(
        "convert it in Python (pip install torch transformers{}), and set model.path to \"{}\":\n"
        "    from transformers import AutoModelForCausalLM, AutoTokenizer{}\n"
        "    AutoModelForCausalLM.from_pretrained(\"{}\", torch_dtype=\"auto\"{}){}.save_pretrained(\"{}\")\n"
        "    AutoTokenizer.from_pretrained(\"{}\").save_pretrained(\"{}\")",
        packages, to, imports, from, arguments, then, to, from, to);
  }
};

TEST_F(ForeignFolder, PyTorchsFilesComeWithTheLinesThatConvertThem) {
  for (const char* file : {"pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"}) {
    const fs::path folder = with_files(fmt::format("Llama-3.2-1B-{}", file), {file, "training_args.bin"});
    EXPECT_EQ(said_of(folder), fmt::format("holds weights in PyTorch's form (\"{}\") and no model.safetensors\n  {}",
                                           file, python(folder.string(), folder.filename().string() + "-converted")));
  }
  const fs::path bare = with_files("bare", {"pytorch_model.bin"}, false);
  EXPECT_THAT(said_of(bare), HasSubstr("\n  put the model's config.json beside it, then\n  convert it in Python"));
}

TEST_F(ForeignFolder, WeightsThatAreThereGoBeforeOthersBesideThem) {
  const fs::path folder = write_model("base", false);
  for (const char* file : {"pytorch_model.bin", "model.gguf", "consolidated.00.pth", "tf_model.h5", "model.onnx",
                           "flax_model.msgpack", "quantize_config.json"})
    test::write_file(folder / file, "not read");
  EXPECT_EQ(fault(folder), "no fault");
}

TEST_F(ForeignFolder, GgufFilesComeWithTheCommandThatImportsThem) {
  const fs::path folder = with_files("smollm", {"SmolLM2-135M.Q8_0.gguf"}, false);
  const fs::path file = folder / "SmolLM2-135M.Q8_0.gguf";
  const std::string import = fmt::format(
      "\n  import it, and set model.path to \"SmolLM2-135M.Q8_0-converted\":\n"
      "    scripts/import_gguf {} SmolLM2-135M.Q8_0-converted",
      file.string());
  EXPECT_EQ(said_of(folder), "holds a GGUF file (\"SmolLM2-135M.Q8_0.gguf\") and no model.safetensors" + import);
  EXPECT_EQ(said_of(file), "is a GGUF file" + import);
  Model::Settings drawn = given(file);
  drawn.model.init = "random";
  EXPECT_EQ(said_of(drawn), "is a GGUF file" + import);
  test::write_file(folder_ / "it's one", "GGUF\3");
  EXPECT_THAT(said_of(folder_ / "it's one"), AllOf(HasSubstr("is a GGUF file"), HasSubstr("it'\\''s one'")));
  test::write_file(folder_ / "model-00001-of-00003.gguf", "GGUF");
  EXPECT_THAT(said_of(folder_ / "model-00001-of-00003.gguf"),
              HasSubstr(fmt::format("set model.path to \"model-converted\":\n"
                                    "    llama-gguf-split --merge {} model-converted.gguf\n"
                                    "    scripts/import_gguf model-converted.gguf model-converted",
                                    (folder_ / "model-00001-of-00003.gguf").string())));
  test::write_file(folder_ / "model.safetensors", "not read");
  EXPECT_EQ(said_of(folder_ / "model.safetensors"),
            "is a file\n  name the folder that holds config.json and the weights");
  EXPECT_EQ(said_of("/dev/null"), "is neither a file nor a folder");
}

TEST_F(ForeignFolder, OtherProgramsFormsAreNamed) {
  const std::pair<const char*, const char*> kinds[] = {
      {"tf_model.h5", "weights in TensorFlow's form"},
      {"model.onnx", "a model in ONNX's form"},
      {"onnx/decoder_model.onnx", "a model in ONNX's form"},
      {"openvino_model.xml", "a model in OpenVINO's form"},
      {"weights.npz", "weights in MLX's old form"},
      {"consolidated.00.pth", "weights in Meta's own form"},
      {"consolidated.safetensors", "weights in Mistral's own form"},
      {"llama.pth", "weights in PyTorch's form"},
  };
  for (const auto& [file, what] : kinds) {
    const fs::path folder = with_files(what + std::to_string(std::string(file).size()), {file});
    EXPECT_EQ(said_of(folder),
              fmt::format("holds {} (\"{}\") and no model.safetensors\n  its weights are not read: take the model that "
                          "it was made of, in Hugging Face's form (config.json, model.safetensors, tokenizer.json)",
                          what, file));
  }
  EXPECT_THAT(
      said_of(with_files("flax", {"flax_model.msgpack"})),
      AllOf(StartsWith("holds weights in Flax's form (\"flax_model.msgpack\") and no model.safetensors\n"),
            HasSubstr("\"transformers<5\" flax"), HasSubstr("flax/flax_model.msgpack\").save_pretrained(\"flax-")));
  EXPECT_THAT(said_of(with_files("trainer", {"rng_state.pth", "optimizer.pt"})),
              StartsWith("holds neither model.safetensors nor model.safetensors.index.json\n"));
}

/// The beginning of a file as llama.cpp's writers make it.
std::string gguf_of(const std::string& architecture) {
  const auto number = [](uint64_t value, size_t bytes) {
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
    return text;
  };
  const std::string key = "general.architecture";
  return "GGUF" + number(3, 4) + number(0, 8) + number(1, 8) + number(key.size(), 8) + key + number(8, 4) +
         number(architecture.size(), 8) + architecture + std::string(64, '\0');
}

TEST_F(ForeignFolder, GgufFilesOfFamiliesThatTheScriptDoesNotReadAreNotSentThere) {
  test::write_file(folder_ / "llama.gguf", gguf_of("llama"));
  EXPECT_THAT(said_of(folder_ / "llama.gguf"), HasSubstr("scripts/import_gguf " + (folder_ / "llama.gguf").string()));
  test::write_file(folder_ / "qwen3.gguf", gguf_of("qwen3"));
  EXPECT_EQ(
      said_of(folder_ / "qwen3.gguf"),
      "is a GGUF file\n  it is of the family \"qwen3\", and scripts/import_gguf reads the family \"llama\": take the "
      "model that it was made of, in Hugging Face's form");
}

TEST_F(ForeignFolder, GptqFoldersOfOtherFamiliesAreNotSentThroughGguf) {
  const fs::path folder = write_model("base", false);
  configure(folder, {{"model_type", "qwen2"}, {"quantization_config", Json::object().set("quant_method", "gptq")}});
  EXPECT_THAT(fault(folder), AllOf(HasSubstr("take the model that it was made of"), Not(HasSubstr("import_gguf"))));
}

TEST_F(ForeignFolder, FoldersOfACacheLeadToTheModel) {
  const fs::path model = folder_ / "models--org--name", snapshot = model / "snapshots" / "abc";
  fs::create_directories(snapshot);
  for (const fs::path& folder : {model, model / "snapshots"})
    EXPECT_EQ(said_of(folder),
              "holds no config.json\n  this folder is the cache's, with all versions of the model: say "
              "model.path=" +
                  snapshot.string());
}

TEST_F(ForeignFolder, QuantisedWeightsAreNamedByTheirMethod) {
  const fs::path folder = write_model("base", false);
  const auto said_with = [&](const char* key, Json value) {
    configure(folder, {{"quantization_config", Json()}, {"quantization", Json()}});
    configure(folder, {{key, std::move(value)}});
    return fault(folder);
  };
  const std::string original = "\n  what quantising took away does not come back: take the model that it was made of";
  for (const char* method : {"gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4"}) {
    const std::string text = said_with("quantization_config", Json::object().set("quant_method", method));
    EXPECT_THAT(text, StartsWith(fmt::format("a.toml:2:1: the weights of model.path \"{}\" are quantised by {}, as "
                                             "config.json says; they are read from f32, bf16 and f16{}",
                                             folder.string(), method, original)));
  }
  const std::string from = folder.string(), to = "base-converted";
  EXPECT_THAT(said_with("quantization_config", Json::object().set("load_in_8bit", true)),
              HasSubstr("quantised by bitsandbytes, as config.json says; they are read from f32, bf16 and f16" +
                        original + "\n  or " + python(from, to, " accelerate bitsandbytes", "", "", ".dequantize()")));
  EXPECT_THAT(said_with("quantization_config", Json::object().set("quant_method", "fp8")),
              HasSubstr(python(from, to, " accelerate", ", FineGrainedFP8Config",
                               ", quantization_config=FineGrainedFP8Config(dequantize=True)")));
  EXPECT_THAT(said_with("quantization_config", Json::object().set("quant_method", "gptq")),
              HasSubstr(fmt::format("set model.path to \"base-converted\" (scripts/import_gguf reads the family "
                                    "\"llama\"):\n"
                                    "    python convert_hf_to_gguf.py {} --outtype f32 --outfile base-converted.gguf\n"
                                    "    scripts/import_gguf base-converted.gguf base-converted",
                                    from)));
  EXPECT_THAT(said_with("quantization_config", Json::object().set("quant_method", "compressed-tensors")),
              HasSubstr("quantization_config=CompressedTensorsConfig(run_compressed=False)"));
  EXPECT_THAT(said_with("quantization", Json::object().set("bits", int64_t{4})),
              AllOf(HasSubstr("quantised by mlx"), HasSubstr(fmt::format("python -m mlx_lm convert --hf-path {} "
                                                                         "--mlx-path base-converted --dequantize",
                                                                         from))));
  for (const char* readme : {"---\nlicense: mit\nbase_model: org/name\n---\n", "---\nbase_model:\n- org/name\n---\n",
                             "base_model: \"org/name\"\r\n"}) {
    test::write_file(folder / "README.md", readme);
    EXPECT_THAT(said_with("quantization_config", Json::object().set("quant_method", "awq")),
                testing::EndsWith(original + ": hf download org/name"));
  }
  for (const std::string readme : {"base_model:", "base_model:\n\n", "base_model: ../x\n", "\n", kPointer.c_str()}) {
    test::write_file(folder / "README.md", readme);
    EXPECT_THAT(said_with("quantization_config", Json::object().set("quant_method", "awq")),
                testing::EndsWith(original));
  }
}

TEST_F(ForeignFolder, QuantisedWeightsAreKnownByTheirFilesAndTensors) {
  for (const auto& [file, what] : {std::pair{"quantize_config.json", "GPTQ"}, {"quant_config.json", "AWQ"}})
    EXPECT_THAT(
        said_of(with_files(what, {file, "gptq_model-4bit-128g.safetensors"})),
        StartsWith(fmt::format("holds weights quantised by {} (\"{}\") and no model.safetensors\n", what, file)));
  const fs::path folder = write_model("base", false);
  for (const char* ending : {".qweight", ".weight.absmax", ".weight_scale_inv", ".SCB", ".weight_packed", ".scales"}) {
    const std::string name = std::string("model.layers.0.self_attn.q_proj") + ending;
    change(folder, [&](Tensors& t) { t[name] = Tensor({4, 2}, DType::i32); });
    EXPECT_THAT(fault(folder),
                StartsWith(fmt::format("{}: the weights are quantised: there is a tensor \"{}\" [4, 2]\n",
                                       (folder / "model.safetensors").string(), name)));
    change(folder, [&](Tensors& t) { t.erase(name); });
  }
  EXPECT_EQ(fault(folder), "no fault");
}

TEST_F(ForeignFolder, DrawnWeightsNeedNoneOfIt) {
  const fs::path folder = with_files("drawn", {"pytorch_model.bin", "quantize_config.json"});
  fs::create_symlink("nowhere", folder / "model.safetensors");
  Model::Settings settings = given(folder);
  settings.model.init = "random";
  EXPECT_EQ(fault(settings), "no fault");
  fs::remove(folder / "config.json");
  EXPECT_THAT(said_of(settings), StartsWith("holds no config.json\n"));
}

TEST_F(ForeignFolder, PointersOfGitLfsAreToldWithTheCommand) {
  const fs::path folder = write_model("base", false);
  for (const char* name : {"model.safetensors", "config.json"}) {
    test::write_file(folder / name, kPointer);
    EXPECT_EQ(fault(folder), (folder / name).string() +
                                 ": is a git-lfs pointer: the file itself was not fetched\n"
                                 "  run \"git lfs pull\" in its repository, or download the file");
  }
  for (const char* file : {"a.bin", "a.gguf"}) {
    test::write_file(folder_ / file, kPointer);
    EXPECT_THAT(fault(folder_ / file), HasSubstr("is a git-lfs pointer"));
  }
}

TEST_F(ForeignFolder, LinksThatLeadNowhereAreNamedWithTheirTarget) {
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "model-00001-of-00002.safetensors", "generation_config.json"}) {
    const fs::path folder = write_model(fmt::format("of-{}", name), false);
    fs::remove(folder / name);
    fs::create_symlink("../../blobs/4d7a", folder / name);
    EXPECT_THAT(fault(folder),
                StartsWith((folder / name).string() + ": is a link to \"../../blobs/4d7a\", which is not there\n"));
    fs::remove(folder / name);
    fs::create_symlink(name, folder / name);
    EXPECT_THAT(fault(folder), HasSubstr(fmt::format("is a link to \"{}\", which cannot be followed: ", name)));
  }
}

TEST_F(ForeignFolder, HalfOfADownloadIsToldWithTheCommandThatGoesOn) {
  const fs::path model = folder_ / "models--org--name", snapshot = model / "snapshots" / "abc";
  fs::create_directories(snapshot);
  fs::create_directories(model / "blobs");
  EXPECT_EQ(said_of(snapshot), "is an empty folder\n  not all of it was downloaded: hf download org/name");
  test::write_file(snapshot / "config.json", test::to_json({}).dump());
  EXPECT_EQ(said_of(snapshot),
            "holds neither model.safetensors nor model.safetensors.index.json\n"
            "  not all of it was downloaded: hf download org/name");
  test::write_file(model / "blobs" / "4d7a.incomplete", "");
  EXPECT_EQ(said_of(snapshot),
            "holds neither model.safetensors nor model.safetensors.index.json\n"
            "  its download was broken off, 1 file is not finished: hf download org/name");
  test::write_file(snapshot / "model.safetensors.index.json", R"({"weight_map": {"a": "model-1.safetensors"}})");
  EXPECT_EQ(fault(snapshot), (snapshot / "model.safetensors.index.json").string() +
                                 ": lists the shard \"model-1.safetensors\", which is not in the folder\n"
                                 "  its download was broken off, 1 file is not finished: hf download org/name");
  const fs::path local = with_files("local", {".cache/huggingface/download/model.safetensors.1f.incomplete",
                                              ".cache/huggingface/download/tokenizer.json.2e.incomplete"});
  EXPECT_THAT(said_of(local),
              HasSubstr("\n  its download was broken off, 2 files are not finished: download it again"));
  test::write_file(snapshot / "pytorch_model.bin", "");
  fs::remove(model / "blobs" / "4d7a.incomplete");
  fs::remove(snapshot / "model.safetensors.index.json");
  EXPECT_THAT(said_of(snapshot), AllOf(HasSubstr("weights in PyTorch's form"), HasSubstr("\"name-converted\"")));
}

TEST_F(ForeignFolder, WhatIsMissingIsToldWithWhatIsThere) {
  fs::create_directories(folder_ / "empty");
  EXPECT_EQ(said_of(folder_ / "empty"), "is an empty folder");
  EXPECT_EQ(said_of(with_files("notes", {"notes.txt"}, false)),
            "holds no config.json\n  name the folder of a model in Hugging Face's form");
  EXPECT_EQ(said_of(with_files("config", {})),
            "holds neither model.safetensors nor model.safetensors.index.json\n"
            "  to draw its weights, set model.init = \"random\"");
  EXPECT_THAT(said_of(with_files("shards", {"model-00001-of-00002.safetensors"})),
              HasSubstr("\n  its shards (\"model-00001-of-00002.safetensors\") need their index, "
                        "model.safetensors.index.json"));
  EXPECT_THAT(said_of(with_files("other", {"weights.safetensors"})),
              HasSubstr("\n  it holds \"weights.safetensors\": if that is the model, call it model.safetensors"));
  const fs::path weights = write_model("weights", false);
  fs::remove(weights / "config.json");
  EXPECT_THAT(said_of(weights), StartsWith("holds no config.json\n"));
  const fs::path empty = with_files("index", {});
  test::write_file(empty / "model.safetensors.index.json", R"({"weight_map": {}})");
  EXPECT_EQ(fault(empty), (empty / "model.safetensors.index.json").string() + ": weight_map lists no tensors");
}

}  // namespace
}  // namespace tessera
