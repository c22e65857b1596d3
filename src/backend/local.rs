//! The backends' devices.
#![allow(unused_imports, dead_code)] // Every backend uses a part; a build may have none.

use super::{BackendKind, DeviceChoice, LocalBackend};
use crate::error::{Error, Result};

/// That a device does not exist.
fn missing(kind: BackendKind, choice: &DeviceChoice, found: String, remedy: &str) -> Error {
    Error::device(format!("device of {kind}")).expected(choice.to_string()).found(found).fix(remedy)
}

/// A device of a backend that knows only the CPU.
fn only_cpu<D: Default>(kind: BackendKind, choice: &DeviceChoice) -> Result<D> {
    match choice {
        DeviceChoice::Default | DeviceChoice::Cpu => Ok(D::default()),
        DeviceChoice::Gpu(_) => Err(missing(
            kind,
            choice,
            "the CPU only".into(),
            "use --device cpu, or a backend that drives GPUs: tch, wgpu, vulkan, metal or cuda",
        )),
    }
}

#[cfg(feature = "flex")]
impl LocalBackend for burn::backend::Flex {
    const KIND: BackendKind = BackendKind::Flex;

    fn device(choice: &DeviceChoice) -> Result<Self::Device> {
        only_cpu(Self::KIND, choice)
    }

    fn describe(_: &Self::Device) -> String {
        "flex on the CPU".into()
    }
}

#[cfg(feature = "ndarray")]
impl LocalBackend for burn::backend::NdArray {
    const KIND: BackendKind = BackendKind::NdArray;

    fn device(choice: &DeviceChoice) -> Result<Self::Device> {
        only_cpu(Self::KIND, choice)
    }

    fn describe(_: &Self::Device) -> String {
        "ndarray on the CPU".into()
    }
}

#[cfg(feature = "tch")]
impl LocalBackend for burn::backend::LibTorch {
    const KIND: BackendKind = BackendKind::Tch;

    fn device(choice: &DeviceChoice) -> Result<Self::Device> {
        use burn::backend::libtorch::LibTorchDevice::{Cpu, Cuda, Mps};
        // burn-tch reports one device whatever there is; LibTorch knows.
        let gpus = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        let mps = tch::utils::has_mps();
        match *choice {
            DeviceChoice::Cpu => Ok(Cpu),
            DeviceChoice::Default if gpus > 0 => Ok(Cuda(0)),
            DeviceChoice::Default if mps => Ok(Mps),
            DeviceChoice::Default => Ok(Cpu),
            DeviceChoice::Gpu(index) if index < gpus => Ok(Cuda(index)),
            DeviceChoice::Gpu(0) if mps => Ok(Mps),
            DeviceChoice::Gpu(_) => Err(missing(
                Self::KIND,
                choice,
                match gpus {
                    0 => "no GPU usable by LibTorch".into(),
                    _ => format!("{gpus} GPU(s), numbered from 0"),
                },
                "use a smaller index or --device cpu; for CUDA, build against a LibTorch with CUDA \
                 (TORCH_CUDA_VERSION, LIBTORCH or LIBTORCH_USE_PYTORCH) and check nvidia-smi",
            )),
        }
    }

    fn devices() -> Result<Vec<Self::Device>> {
        let gpus = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        match gpus {
            0 => Ok(vec![Self::device(&DeviceChoice::Default)?]),
            _ => (0..gpus).map(|index| Self::device(&DeviceChoice::Gpu(index))).collect(),
        }
    }

    fn describe(device: &Self::Device) -> String {
        use burn::backend::libtorch::LibTorchDevice::{Cpu, Cuda, Mps, Vulkan};
        match device {
            Cpu => format!("LibTorch on the CPU, {} threads", tch::get_num_threads()),
            Cuda(index) => format!("LibTorch on CUDA GPU {index}"),
            Mps => "LibTorch on Apple's MPS".into(),
            Vulkan => "LibTorch on Vulkan".into(),
        }
    }
}

#[cfg(feature = "wgpu")]
mod adapters {
    //! wgpu's adapters, in the order in which CubeCL counts them.

    use burn::backend::wgpu::WgpuDevice;
    use wgpu::{AdapterInfo, DeviceType};

    /// Devices with their descriptions: discrete GPUs, integrated ones, virtual ones, CPUs.
    pub(super) fn list() -> Vec<(WgpuDevice, AdapterInfo)> {
        let backends = match cfg!(target_os = "macos") {
            true => wgpu::Backends::METAL,
            false => wgpu::Backends::VULKAN,
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let infos: Vec<AdapterInfo> =
            burn::tensor::read_sync(instance.enumerate_adapters(backends))
                .iter()
                .map(wgpu::Adapter::get_info)
                .collect();
        let of = |kind| infos.iter().filter(move |info| info.device_type == kind).cloned();
        let numbered = |kind, device: fn(usize) -> WgpuDevice| {
            of(kind).enumerate().map(move |(index, info)| (device(index), info))
        };
        numbered(DeviceType::DiscreteGpu, WgpuDevice::DiscreteGpu)
            .chain(numbered(DeviceType::IntegratedGpu, WgpuDevice::IntegratedGpu))
            .chain(numbered(DeviceType::VirtualGpu, WgpuDevice::VirtualGpu))
            .chain(of(DeviceType::Cpu).take(1).map(|info| (WgpuDevice::Cpu, info)))
            .collect()
    }
}

#[cfg(feature = "wgpu")]
impl LocalBackend for burn::backend::Wgpu {
    const KIND: BackendKind = BackendKind::Wgpu;

    fn device(choice: &DeviceChoice) -> Result<Self::Device> {
        use burn::backend::wgpu::WgpuDevice::Cpu;
        let all = adapters::list();
        let names: Vec<_> = all.iter().map(|(_, info)| info.name.clone()).collect();
        let gpus = all.iter().filter(|(device, _)| *device != Cpu).count();
        let found = match choice {
            DeviceChoice::Default => all.into_iter().next(),
            DeviceChoice::Cpu => all.into_iter().find(|(device, _)| *device == Cpu),
            DeviceChoice::Gpu(index) => all.into_iter().take(gpus).nth(*index),
        };
        let device = found.map(|(device, _)| device).ok_or_else(|| match names.is_empty() {
            true => missing(
                Self::KIND,
                choice,
                "no adapter".into(),
                "install the driver of the GPU (on Linux with Vulkan), or mesa-vulkan-drivers and \
                 libvulkan1 to compute on the CPU; vulkaninfo --summary lists the available \
                 adapters",
            ),
            false => missing(
                Self::KIND,
                choice,
                format!("{gpus} GPU(s) among the adapters {}", names.join(", ")),
                "use a smaller index, or --device default",
            ),
        })?;
        super::local::probe::<Self>(&device)?;
        Ok(device)
    }

    fn devices() -> Result<Vec<Self::Device>> {
        use burn::backend::wgpu::WgpuDevice::Cpu;
        let gpus = adapters::list().iter().filter(|(device, _)| *device != Cpu).count();
        match gpus {
            0 => Ok(vec![Self::device(&DeviceChoice::Default)?]),
            _ => (0..gpus).map(|index| Self::device(&DeviceChoice::Gpu(index))).collect(),
        }
    }

    fn describe(device: &Self::Device) -> String {
        let fusion = if cfg!(feature = "fusion") { ", fusion" } else { "" };
        match adapters::list().into_iter().find(|(listed, _)| listed == device) {
            Some((_, info)) => format!("wgpu on {} ({:?}{fusion})", info.name, info.backend),
            None => format!("wgpu on {device:?}{fusion}"),
        }
    }
}

#[cfg(feature = "cuda")]
impl LocalBackend for burn::backend::Cuda {
    const KIND: BackendKind = BackendKind::Cuda;

    fn device(choice: &DeviceChoice) -> Result<Self::Device> {
        let index = match *choice {
            DeviceChoice::Default => 0,
            DeviceChoice::Gpu(index) => index,
            DeviceChoice::Cpu => {
                return Err(missing(
                    Self::KIND,
                    choice,
                    "GPUs only".into(),
                    "use --device gpu:0, or a backend for the CPU: flex or tch",
                ));
            }
        };
        let device = burn::backend::cuda::CudaDevice { index };
        probe::<Self>(&device)?;
        Ok(device)
    }

    fn devices() -> Result<Vec<Self::Device>> {
        use burn::tensor::backend::Backend;
        Self::device(&DeviceChoice::Default)?;
        let count = Self::device_count(0).max(1);
        (0..count).map(|index| Self::device(&DeviceChoice::Gpu(index))).collect()
    }

    fn describe(device: &Self::Device) -> String {
        let fusion = if cfg!(feature = "fusion") { ", fusion" } else { "" };
        format!("CUDA on GPU {}{fusion}", device.index)
    }
}

/// Computes something on a device. A driver that cannot be had, or an index that does not exist,
/// makes CubeCL panic; here it becomes an error.
pub(super) fn probe<B: LocalBackend>(device: &B::Device) -> Result<()> {
    use burn::tensor::Tensor;
    let computed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let ones = Tensor::<B, 1>::ones([4], device);
        ones.sum().into_data().iter::<f32>().next()
    }));
    let found = match computed {
        Ok(Some(4.0)) => return Ok(()),
        Ok(other) => format!("1 + 1 + 1 + 1 = {other:?}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("a panic").lines().next().unwrap_or_default().to_string()
        }
    };
    Err(Error::device(format!("device {device:?} of {}", B::KIND)).expected("a driver and a device that computes").found(found).fix("check the driver (nvidia-smi, vulkaninfo --summary) and the index, or use --device cpu"))
}
