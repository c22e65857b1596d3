//! Training on one device, or on several through burn-train's strategies.
//!
//! Each device has a copy of the network and takes its rows of every batch; a step does what one
//! device would do with all rows. See `docs/devices.md`.

use burn::{
    tensor::backend::AutodiffBackend,
    train::{ExecutionStrategy, MultiDeviceOptim},
};

use super::{
    data::TrainingData,
    placement::{DeviceGroup, Placement},
    trainer::{Trained, Trainer},
};
use crate::{
    error::{Error, Result},
    model::Cart,
};

impl Trainer {
    /// Says where the optimizer works when [`Trainer::fit_devices`] trains on several devices.
    pub fn with_placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Trains.
    ///
    /// The same model, data, settings, backend and number of threads give the same result, provided
    /// no other thread draws from the backend's generator meanwhile.
    ///
    /// # Errors
    /// - [`Error::Config`] for settings out of range.
    /// - [`Error::Checkpoint`] when the folder holds another training, or one that was not to be
    ///   resumed, or when a checkpoint cannot be written or read.
    /// - [`Error::Training`] when loss or gradients were not finite for
    ///   [`TrainConfig::max_bad_steps`](super::TrainConfig::max_bad_steps) steps in a row, or when
    ///   the device ran out of memory.
    pub fn fit<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        device: &B::Device,
    ) -> Result<Trained<B::InnerBackend>> {
        self.fit_devices(model, data, std::slice::from_ref(device))
    }

    /// Trains on several devices. The first also validates.
    ///
    /// `batch_size` remains the number of pairs of a step: each device takes its share of the rows,
    /// so steps, schedule and result are those of one device, but for rounding and the draws of the
    /// dropout. A device may be listed twice, which is of use in tests only. With one device, this
    /// is [`Trainer::fit`].
    ///
    /// # Errors
    /// As [`Trainer::fit`]; [`Error::Config`] without devices, and with more devices than rows in a
    /// batch.
    pub fn fit_devices<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        devices: &[B::Device],
    ) -> Result<Trained<B::InnerBackend>> {
        self.check_devices(devices.len(), data)?;
        let strategy = match (devices, self.placement) {
            ([device], _) => ExecutionStrategy::SingleDevice(device.clone()),
            (_, Placement::Main) => {
                ExecutionStrategy::multi(devices.to_vec(), MultiDeviceOptim::OptimMainDevice)
            }
            (_, Placement::Sharded) => {
                ExecutionStrategy::multi(devices.to_vec(), MultiDeviceOptim::OptimSharded)
            }
        };
        let together =
            DeviceGroup { devices: devices.len(), placement: self.placement, distributed: false };
        self.run(model, data, &devices[0], strategy, together)
    }

    /// Trains with a training loop on every device; gradients are added up by the backend's own
    /// collective operations (NCCL) during the backward pass. In burn 0.21 only `cuda` has them.
    ///
    /// # Errors
    /// As [`Trainer::fit_devices`]; [`Error::Config`] for a device listed twice, for a last batch
    /// of a pass with fewer rows than devices, for micro-batches (every backward pass would be one
    /// collective operation) and for `f16` (use `bf16`).
    #[cfg(feature = "distributed")]
    pub fn fit_distributed<B>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        devices: &[B::Device],
    ) -> Result<Trained<B::InnerBackend>>
    where
        B: AutodiffBackend + burn::tensor::backend::distributed::DistributedBackend,
    {
        use burn::tensor::backend::distributed::{DistributedConfig, ReduceOperation};

        self.check_devices(devices.len(), data)?;
        if let Some(twice) =
            devices.iter().enumerate().find(|(at, device)| devices[..*at].contains(device))
        {
            return Err(Error::config("devices")
                .expected("each device once")
                .found(format!("{:?} twice", twice.1))
                .fix("list every device once, or use fit_devices"));
        }
        let rest = data.pairs() % self.config.batch_size;
        Error::config("batch_size")
            .expected(format!("a last batch of at least {} rows, one per device", devices.len()))
            .found(format!("{rest} rows"))
            .fix_if(rest > 0 && rest < devices.len(), "change batch_size, or use fit_devices")?;
        Error::config("micro_batch")
            .expected("0 in a distributed training")
            .found(self.config.micro_batch.to_string())
            .fix_if(self.config.micro_batch > 0, "make batch_size smaller, or use fit_devices")?;
        Error::config("precision")
            .expected("f32 or bf16 in a distributed training")
            .found("f16")
            .fix_if(self.config.precision.scales_loss(), "use bf16, or fit_devices")?;
        // Losses are weighted by rows before the backward pass, so gradients are to be summed.
        let config = DistributedConfig { all_reduce_op: ReduceOperation::Sum };
        let strategy = ExecutionStrategy::ddp(devices.to_vec(), config);
        let together =
            DeviceGroup { devices: devices.len(), placement: Placement::Main, distributed: true };
        self.run(model, data, &devices[0], strategy, together)
    }

    fn check_devices(&self, devices: usize, data: &TrainingData) -> Result<()> {
        let rows = self.config.batch_size.min(data.pairs());
        Error::config("devices")
            .expected("at least one device")
            .found("none")
            .fix_if(devices == 0, "list the devices to train on")?;
        Error::config("devices")
            .expected(format!("at most {rows}, the rows of a batch"))
            .found(devices.to_string())
            .fix_if(devices > rows, "list fewer devices, or make batch_size larger")
    }
}
