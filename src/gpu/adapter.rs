//! Lists adapters and picks the one that the user asks for.

use super::{AdapterClass, Caps, Gpu, GpuOptions};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// The environment variable that chooses an adapter, in the syntax of [`AdapterChoice`].
pub const ADAPTER_VARIABLE: &str = "WGFORMER_ADAPTER";

/// A description of an adapter before it is opened: plain data for lists, reports and the choice.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct AdapterSummary {
    /// Its index in [`Gpu::adapters`].
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub device_type: String,
    /// The driver's name; may be empty.
    pub driver: String,
    /// The driver's version; may be empty.
    pub driver_info: String,
    /// The vendor id, usually from the PCI registry.
    pub vendor: u32,
    /// The device id.
    pub device: u32,
    /// Its capabilities when it is opened with all limits and features. Whether textures can share the memory of buffers is known only of an
    /// open device.
    pub caps: Caps,
}

impl AdapterSummary {
    /// Describes the adapter at `index` of a list.
    #[must_use]
    pub fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let caps = Caps::of(&adapter.limits(), adapter.features(), &info, AdapterClass::of(&info));
        let device_type = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "cpu",
            wgpu::DeviceType::Other => "other",
        };
        Self {
            index,
            name: info.name,
            backend: info.backend.to_str().into(),
            device_type: device_type.into(),
            driver: info.driver,
            driver_info: info.driver_info,
            vendor: info.vendor,
            device: info.device,
            caps,
        }
    }

    /// Orders adapters from best to worst: real GPUs first, then backends other than OpenGL, then wider subgroups (of two CPU drivers the
    /// faster one), then the order of the list.
    fn rank(&self) -> (usize, usize, Reverse<u32>, usize) {
        const TYPES: [&str; 5] = ["discrete", "integrated", "virtual", "other", "cpu"];
        let device_type = TYPES.iter().position(|t| *t == self.device_type).unwrap_or(TYPES.len());
        (device_type, usize::from(self.backend == "gl"), Reverse(self.caps.subgroup.unwrap_or(0)), self.index)
    }
}

impl fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {} ({}, {})", self.index, self.name, self.backend, self.device_type)?;
        let driver = format!("{} {}", self.driver, self.driver_info);
        if driver.trim().is_empty() { Ok(()) } else { write!(f, ", driver {}", driver.trim()) }
    }
}

/// Which adapter to open. Parsed from a string:
///
/// * empty: the best adapter;
/// * a number, `1`: the index in the list, and nothing else;
/// * a backend, `vulkan`, `metal`, `dx12`, `gl` or `webgpu`: the best adapter of that backend;
/// * a part of the name, `swiftshader`, case-insensitive;
/// * both, `gl:llvmpipe`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterChoice {
    text: String,
    backend: Option<&'static str>,
    name: String,
}

impl AdapterChoice {
    /// The choice in the environment variable [`ADAPTER_VARIABLE`]; the best adapter if the variable is not set.
    #[must_use]
    pub fn from_env() -> Self {
        Self::parse(&std::env::var(ADAPTER_VARIABLE).unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        let (backend, name) = match text.split_once(':') {
            Some((front, back)) if backend(front).is_some() => (backend(front), back.trim()),
            _ if backend(text).is_some() => (backend(text), ""),
            _ => (None, text),
        };
        Self { text: text.into(), backend, name: name.to_lowercase() }
    }

    /// The index of the chosen adapter.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], which lists the adapters found and says what to do.
    pub fn pick(&self, adapters: &[AdapterSummary]) -> Result<usize> {
        let by_index = is_number(&self.text).then(|| self.text.parse::<usize>().ok());
        let fits = |a: &&AdapterSummary| match by_index {
            Some(index) => index == Some(a.index),
            None if is_number(&self.name) => false,
            None => self.backend.is_none_or(|b| b == a.backend) && a.name.to_lowercase().contains(&self.name),
        };
        let best = adapters.iter().filter(fits).min_by_key(|a| a.rank());
        best.map(|a| a.index).ok_or_else(|| self.not_found(adapters))
    }

    fn not_found(&self, adapters: &[AdapterSummary]) -> Error {
        let wanted = if self.text.is_empty() { "is there".into() } else { format!("fits \"{}\"", self.text) };
        if adapters.is_empty() {
            let hint = if wgpu::Instance::enabled_backend_features().is_empty() {
                "This program was built without an interface to GPUs: enable wgformer's features vulkan, gles, metal or dx12"
            } else if cfg!(target_arch = "wasm32") {
                "Use a browser with WebGPU (Chrome, Edge, or a recent Safari or Firefox), and a page from https or localhost"
            } else if cfg!(target_os = "linux") {
                "Install a Vulkan driver: your GPU's, or one for the CPU, e.g. apt-get install mesa-vulkan-drivers"
            } else {
                "Install the current driver of your GPU"
            };
            return Error::NoAdapter { wanted, found: "none".into(), hint: hint.into() };
        }
        let found: Vec<String> = adapters.iter().map(ToString::to_string).collect();
        let hint = if is_number(&self.text) || is_number(&self.name) {
            format!("A number is an index in this list, 0 to {}, without a backend", adapters.len() - 1)
        } else {
            format!("Choose by number, backend or a part of the name, e.g. {ADAPTER_VARIABLE}=0 or \"vulkan\"")
        };
        Error::NoAdapter { wanted, found: found.join("; "), hint }
    }
}

impl FromStr for AdapterChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::parse(text))
    }
}

impl fmt::Display for AdapterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "best" } else { &self.text })
    }
}

/// Whether a text is an integer, in range or not.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// A backend by one of its names.
fn backend(name: &str) -> Option<&'static str> {
    match name.trim().to_lowercase().as_str() {
        "vulkan" | "vk" => Some("vulkan"),
        "metal" | "mtl" => Some("metal"),
        "dx12" | "d3d12" => Some("dx12"),
        "gl" | "gles" | "opengl" => Some("gl"),
        "webgpu" => Some("webgpu"),
        _ => None,
    }
}

impl Gpu {
    /// All adapters of all backends on this machine. In a browser use [`Gpu::adapters_async`].
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn adapters() -> Vec<wgpu::Adapter> {
        pollster::block_on(Self::adapters_async(&GpuOptions::default()))
    }

    /// All adapters of all backends on this machine, from an instance with these options.
    pub async fn adapters_async(options: &GpuOptions) -> Vec<wgpu::Adapter> {
        let mut flags = wgpu::InstanceFlags::default() - wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
        if let Some(on) = options.validation {
            flags.set(wgpu::InstanceFlags::VALIDATION | wgpu::InstanceFlags::DEBUG, on);
        }
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            flags,
            memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
                for_resource_creation: options.memory_budget_percent,
                for_device_loss: None,
            },
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        instance.enumerate_adapters(wgpu::Backends::all()).await
    }

    /// A description of each adapter on this machine.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn summaries() -> Vec<AdapterSummary> {
        summaries(&Self::adapters())
    }

    /// Opens the adapter that `wanted` names in the syntax of [`AdapterChoice`]; with `None`, the one in the environment variable
    /// [`ADAPTER_VARIABLE`], or the best if it is not set.
    ///
    /// # Errors
    /// As [`Gpu::choose_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn choose(wanted: Option<&str>) -> Result<Self> {
        pollster::block_on(Self::choose_async(wanted, &GpuOptions::default()))
    }

    /// As [`Gpu::choose`], with options.
    ///
    /// # Errors
    /// As [`Gpu::choose`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn choose_with(wanted: Option<&str>, options: &GpuOptions) -> Result<Self> {
        pollster::block_on(Self::choose_async(wanted, options))
    }

    /// The async form of `Gpu::choose_with`.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], with the adapters found and what to do; the errors of [`Gpu::open_async`].
    pub async fn choose_async(wanted: Option<&str>, options: &GpuOptions) -> Result<Self> {
        let choice = wanted.map_or_else(AdapterChoice::from_env, AdapterChoice::parse);
        let adapters = Self::adapters_async(options).await;
        let index = choice.pick(&summaries(&adapters))?;
        Self::open_async(&adapters[index], options).await
    }
}

fn summaries(adapters: &[wgpu::Adapter]) -> Vec<AdapterSummary> {
    adapters.iter().enumerate().map(|(index, adapter)| AdapterSummary::new(index, adapter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(adapters: &[(&str, &str, &str)]) -> Vec<AdapterSummary> {
        (adapters.iter().enumerate())
            .map(|(index, (name, backend, device_type))| AdapterSummary {
                index,
                name: (*name).into(),
                backend: (*backend).into(),
                device_type: (*device_type).into(),
                driver: String::new(),
                driver_info: String::new(),
                vendor: 0,
                device: 0,
                caps: Caps::baseline(),
            })
            .collect()
    }

    fn machine() -> Vec<AdapterSummary> {
        list(&[
            ("llvmpipe (LLVM 15)", "vulkan", "cpu"),
            ("Intel UHD 630", "gl", "integrated"),
            ("Intel UHD 630", "vulkan", "integrated"),
            ("NVIDIA GeForce RTX 3060", "gl", "discrete"),
            ("NVIDIA GeForce RTX 3060", "vulkan", "discrete"),
            ("NVIDIA GeForce RTX 3060", "dx12", "discrete"),
            ("SwiftShader Device", "vulkan", "cpu"),
        ])
    }

    #[test]
    fn a_choice_is_an_index_a_backend_a_name_or_both() {
        let pick = |text: &str| AdapterChoice::parse(text).pick(&machine()).unwrap();
        assert_eq!(pick(""), 4, "discrete, not OpenGL, first of its kind");
        assert_eq!(pick("1"), 1);
        assert_eq!(pick("rtx 3060"), 4);
        assert_eq!(pick("swiftShader"), 6);
        assert_eq!(pick("uhd"), 2);
        assert_eq!(pick("gl:uhd"), 1);
        assert_eq!(pick(" OpenGL "), 3);
        assert_eq!(pick("dx12"), 5);
        assert_eq!(pick("vk: llvmpipe"), 0);
    }

    #[test]
    fn software_comes_last_and_its_order_is_stable() {
        let soft = list(&[("llvmpipe", "gl", "cpu"), ("llvmpipe", "vulkan", "cpu"), ("swift", "vulkan", "cpu")]);
        assert_eq!(AdapterChoice::default().pick(&soft).unwrap(), 1);
        let unknown = list(&[("llvmpipe", "vulkan", "cpu"), ("Adreno", "gl", "other")]);
        assert_eq!(AdapterChoice::default().pick(&unknown).unwrap(), 1);
    }

    #[test]
    fn an_unknown_adapter_is_an_error_that_lists_the_known_ones() {
        let message_for = |text: &str, adapters: &[AdapterSummary]| {
            AdapterChoice::parse(text).pick(adapters).unwrap_err().to_string()
        };
        let message = message_for("metal", &machine());
        assert!(message.contains("no GPU adapter fits \"metal\""), "{message}");
        assert!(message.contains("[5] NVIDIA GeForce RTX 3060 (dx12, discrete)"), "{message}");
        assert!(message.contains("WGFORMER_ADAPTER"), "{message}");
        let message = message_for("", &[]);
        assert!(message.contains("no GPU adapter is there. Found: none. Install"), "{message}");
        // A number outside the list does not match a name: 3060 might be meant, but 2 would match llvmpipe's "256 bits".
        for number in ["9", "7", "3060", "-1", "99999999999999999999999999", "vulkan:0", "gl:3060"] {
            let message = message_for(number, &machine());
            assert!(message.contains(&format!("fits \"{number}\"")), "{message}");
            assert!(message.contains("an index in this list, 0 to 6"), "{message}");
        }
    }
}
